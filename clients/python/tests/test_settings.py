"""Which service the client uses."""

from pathlib import Path

import httpx
import pytest

from deepfinery_trainer import ConfigurationError, Trainer, UnreachableError
from deepfinery_trainer.calls import Call
from deepfinery_trainer.retries import Retries
from deepfinery_trainer.settings import Settings


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("of-b\n")
    (tmp_path / "config.yaml").write_text(
        f"current: a\nservers:\n  a: {{url: 'http://a'}}\n"
        f"  b: {{url: 'http://b/', token_file: '{tmp_path}/token'}}\n"
    )
    return {"TRAINER_CONFIG": str(tmp_path / "config.yaml")}


def test_arguments_beat_variables_and_variables_the_file(environment: dict[str, str]) -> None:
    def found(**given: str) -> tuple[str, str | None]:
        arguments = {name: of for name, of in given.items() if name.islower()}
        variables = {name: of for name, of in given.items() if name.isupper()}
        settings = Settings.find(**arguments, environment={**environment, **variables})
        return settings.url, settings.token

    assert found() == ("http://a", None)
    assert found(TRAINER_SERVER="b") == ("http://b", "of-b")
    assert found(TRAINER_SERVER="b", TRAINER_API_TOKEN="own") == ("http://b", "own")
    assert found(server="b", TRAINER_API_TOKEN="own") == ("http://b", "of-b")
    assert found(TRAINER_URL="http://c", TRAINER_SERVER="b") == ("http://c", None)
    assert found(url="http://d", TRAINER_URL="http://c", token="t") == ("http://d", "t")


def test_without_anything_it_is_the_service_of_make_run(tmp_path: Path) -> None:
    assert Settings.find(environment={"HOME": str(tmp_path)}).url == "http://127.0.0.1:8080"


def test_a_wrong_setting_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no server 'c' with a url; known: a, b"):
        Settings.find(server="c", environment=environment)
    with pytest.raises(ConfigurationError, match=r"https://trainer\.example\.org"):
        Settings.find("trainer.example.org", environment=environment)
    (tmp_path / "config.yaml").write_text("servers: [a")
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        Settings.find(environment=environment)


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(Settings("http://a", "secret"))


def test_a_service_that_does_not_respond_is_named() -> None:
    trainer = Trainer("http://127.0.0.1:9", retry_seconds=0)
    with pytest.raises(UnreachableError, match=r"no response from http://127\.0\.0\.1:9"):
        trainer.whoami()


@pytest.mark.parametrize(
    ("status", "is_repeated"), [(200, False), (400, False), (404, False), (429, True), (503, True)]
)
def test_only_what_passes_is_repeated(status: int, is_repeated: bool) -> None:
    retries = Retries(Call("GET", "train"), 60)
    pause = retries.pause(httpx.Response(status, headers={"Retry-After": "7"}))
    assert (pause is not None) == is_repeated
    assert pause is None or pause >= 7
    rollback = Retries(Call("POST", "frameworks/meta/rollback"), 60)
    assert rollback.pause(httpx.Response(status)) is None
