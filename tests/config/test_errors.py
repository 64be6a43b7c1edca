"""One exception, one line for each mistake."""

from visionlab.config import ConfigError


def test_the_message_counts_and_lists_every_mistake():
    error = ConfigError(["seed: wrong", "no key 'x'"], "run.yaml")
    assert str(error) == "2 errors in run.yaml:\n  seed: wrong\n  no key 'x'"
    assert str(ConfigError(["seed: wrong"])) == "1 error in the config:\n  seed: wrong"
    assert error.errors == ["seed: wrong", "no key 'x'"]
