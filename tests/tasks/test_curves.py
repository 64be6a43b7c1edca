"""Curves survive a kill: rows are appended, and a resumed run drops what it draws again."""

from visionlab.tasks.curves import CurveLogger, drop_after, read_curves


def written(path, steps):
    logger = CurveLogger(path)
    for step in steps:
        logger.log_metrics({"loss": step / 3, "epoch": 0}, step)
    return logger


def test_values_come_back_exactly(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    written(path, range(4)).log_metrics({"val/loss": 1e-17}, 3)
    assert read_curves(path) == {"loss": [(s, s / 3) for s in range(4)], "val/loss": [(3, 1e-17)]}


def test_a_row_written_ahead_comes_once(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path)
    logger.write_ahead({"val/loss": 1.0}, 5)
    logger.log_metrics({"val/loss": 1.0, "lr": 0.1}, 5)
    logger.log_metrics({"val/loss": 2.0}, 6)
    assert read_curves(path) == {"val/loss": [(5, 1.0), (6, 2.0)], "lr": [(5, 0.1)]}


def test_steps_that_are_drawn_again_go(tmp_path):
    path = tmp_path / "metrics.csv"
    written(path, range(6))
    with path.open("a") as file:
        file.write("2,loss,0.")  # cut short by the kill
    drop_after(path, 4)
    assert read_curves(path) == {"loss": [(s, s / 3) for s in range(4)]}


def test_rows_behind_the_length_that_the_checkpoint_saw_go(tmp_path):
    path = tmp_path / "metrics.csv"
    written(path, range(3))
    length = path.stat().st_size
    written(path, [2, 3])
    drop_after(path, 99, length=length)
    assert path.stat().st_size == length
    assert read_curves(path)["loss"] == [(s, s / 3) for s in range(3)]


def test_a_file_without_a_whole_header_is_removed(tmp_path):
    for content in ("", "step,met"):
        (tmp_path / "metrics.csv").write_text(content)
        drop_after(tmp_path / "metrics.csv", 3)
        assert not (tmp_path / "metrics.csv").exists()
    drop_after(tmp_path / "metrics.csv", 3)  # none is fine
