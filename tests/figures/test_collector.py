"""What is published is written, with machine, versions and date."""

from visionlab.figures import collector, read_folder


def test_publishing_costs_nothing_until_somebody_listens(make, tmp_path, monkeypatch):
    monkeypatch.setattr(collector, "_listener", {})
    collector.publish(make())
    collector.collect_into(tmp_path, command="the command")
    collector.publish(make(command=""))
    assert read_folder(tmp_path)["part.name"].command == "the command"


def test_measured_tells_machine_versions_and_date(monkeypatch):
    table = collector.measured("a.b", "t", head="h", columns=[], figures=[])
    assert "cores, load" in table.machine
    assert table.versions["python"].startswith("3.")
    assert len(table.date) == 10
