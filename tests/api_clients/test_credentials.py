"""Keys are found in the documented order, kept private, and never shown."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from controlstack.api_clients.credentials import __main__ as command
from controlstack.api_clients.credentials.redaction import Secret, redact, redact_json
from controlstack.api_clients.credentials.store import (
    credentials_file,
    find_credentials,
    list_profiles,
    read_profiles,
    remove_credentials,
    store_credentials,
)
from controlstack.api_clients.registry import SPECS
from controlstack.core.errors import CredentialsMissing

QOLABA, SCENARIO = SPECS["qolaba"], SPECS["scenario"]
KEY, OTHER = "api_0123456789abcdef", "sec_ZYXWVUTSRQ98765"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return credentials_file(tmp_path)


def test_the_environment_comes_before_the_file_and_serves_the_default_profile_only(file: Path) -> None:
    store_credentials(QOLABA, "default", {"api_key": KEY}, file)
    store_credentials(QOLABA, "studio", {"api_key": OTHER}, file)
    environ = {"QOLABA_API_KEY": "from-the-environment"}
    assert find_credentials(QOLABA, "default", file, environ).reveal() == ("from-the-environment",)
    assert find_credentials(QOLABA, "default", file, {}).reveal() == (KEY,)
    assert find_credentials(QOLABA, "studio", file, environ).reveal() == (OTHER,)


@pytest.mark.parametrize("prefix", ["SCENARIO_SDK_API", "SCENARIO_API"])
def test_scenario_has_two_pairs_of_variables(file: Path, prefix: str) -> None:
    environ = {f"{prefix}_KEY": KEY, f"{prefix}_SECRET": OTHER}
    assert find_credentials(SCENARIO, "default", file, environ).reveal() == (KEY, OTHER)


def test_half_a_pair_is_named(file: Path) -> None:
    with pytest.raises(CredentialsMissing, match="SCENARIO_SDK_API_SECRET is not set"):
        find_credentials(SCENARIO, "default", file, {"SCENARIO_SDK_API_KEY": KEY})


def test_a_missing_key_says_where_to_put_it(file: Path) -> None:
    with pytest.raises(CredentialsMissing) as caught:
        find_credentials(SCENARIO, "default", file, {})
    text = str(caught.value)
    assert "SCENARIO_SDK_API_KEY and SCENARIO_SDK_API_SECRET" in text
    assert "Enter it in ComfyUI under Settings, ControlStack, or run" in text
    assert "`python -m controlstack.credentials set scenario` in the folder custom_nodes" in text
    with pytest.raises(CredentialsMissing, match="set qolaba --profile studio"):
        find_credentials(QOLABA, "studio", file, {"QOLABA_API_KEY": KEY})


def test_a_key_pasted_as_a_profile_is_not_repeated(file: Path) -> None:
    pasted = KEY + "." + OTHER
    with pytest.raises(CredentialsMissing) as caught:
        find_credentials(QOLABA, pasted, file, {})
    assert pasted not in str(caught.value)


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "caf\u00e9", "tab\t", "x" * 2000, "a:b", ""])
def test_values_that_no_key_can_have_are_refused_without_showing_them(file: Path, value: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        store_credentials(QOLABA, "default", {"api_key": value}, file)
    assert not value or value not in str(caught.value)
    assert not file.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_file_is_readable_by_its_owner_only_and_left_whole(file: Path) -> None:
    for profile in ("default", "studio", "default"):
        store_credentials(SCENARIO, profile, {"api_key": KEY, "api_secret": OTHER}, file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["credentials.toml"]
    assert remove_credentials(SCENARIO, "studio", file) and not remove_credentials(SCENARIO, "studio", file)
    assert set(read_profiles(file)) == {("scenario", "default")}


def test_what_is_written_is_toml(file: Path) -> None:
    tricky = "a\"b\\c'd#e=[f]"
    store_credentials(QOLABA, "default", {"api_key": tricky}, file)
    assert read_profiles(file) == {("qolaba", "default"): {"api_key": tricky}}
    assert tomllib.loads(file.read_text()) == {"qolaba": {"default": {"api_key": tricky}}}


def test_a_file_written_by_hand_is_read(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(
        "# mine\n\n[ modelslab . default ] # work\napi_key='abc#1' # note\n[qolaba.b]\n api_key = \"x\\u0041\"\n"
    )
    expected = {("modelslab", "default"): {"api_key": "abc#1"}, ("qolaba", "b"): {"api_key": "xA"}}
    assert read_profiles(file) == expected


@pytest.mark.parametrize(
    "text", ["api_key = 'x'", "[a.b]\napi_key = x", "[a]\n", '[a.b]\nk = "\\q"', "[a.b]\nk = 1", "[a.b]\n'k l' = 'x'"]
)
def test_a_broken_file_is_named_by_line_and_never_quoted(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(CredentialsMissing, match=r"line \d"):
        find_credentials(QOLABA, "default", file, {})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"[qolaba.default]\n\napi_key = {KEY}\n", 3),
        (f"[qolaba.default]\napi_key = '{KEY}\n[a.b]\n", 2),
        (f"[qolaba.default]\n{KEY} = 'x'\n{KEY} = 'y'\n", 3),
        (f"[a.b]\nk = '''\nx'''\n[qolaba.default]\napi_key = ['{KEY}']\n", 5),
        (f'[qolaba.default]\napi_key = "{KEY}', 2),
        (f"[qolaba.default]\napi_key = 'x'\n[qolaba.{KEY}.default]\n", 3),
    ],
    ids=["no quotes", "open quotes", "twice", "a list", "the end", "a table too deep"],
)
def test_the_line_that_is_wrong_is_named_and_no_key_in_it(file: Path, text: str, line: int) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(CredentialsMissing, match=rf"credentials\.toml, line {line} is not valid") as caught:
        read_profiles(file)
    assert KEY not in str(caught.value) and caught.value.__cause__ is caught.value.__context__ is None


def test_what_a_user_wrote_beside_the_keys_survives_a_rewrite(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("[mine.note]\ntext = 'caf\u00e9 \U0001f600 \\ \"'\n", encoding="utf-8")
    store_credentials(QOLABA, "default", {"api_key": KEY}, file)
    assert read_profiles(file)["mine", "note"] == {"text": 'caf\u00e9 \U0001f600 \\ "'}


def test_a_file_that_version_0_1_wrote_is_read(file: Path) -> None:
    file.parent.mkdir(parents=True)
    lines = ["[qolaba.default]", f'api_key = "{KEY}"', r'note = "\u00e9 \ud83d\ude00 C:\\ud83d\\ude00"', ""]
    file.write_text("\n".join(lines), encoding="utf-8")
    file.chmod(0o600)
    assert read_profiles(file)["qolaba", "default"] == {"api_key": KEY, "note": "\u00e9 \U0001f600 C:\\ud83d\\ude00"}
    store_credentials(QOLABA, "studio", {"api_key": OTHER}, file)
    assert read_profiles(file)["qolaba", "default"]["note"] == "\u00e9 \U0001f600 C:\\ud83d\\ude00"


def test_a_colon_is_refused_in_a_key_only(file: Path) -> None:
    for spec, values in ((QOLABA, {"api_key": "a:b"}), (SCENARIO, {"api_key": "a:b", "api_secret": OTHER})):
        with pytest.raises(ValueError, match="contains a colon"):
            store_credentials(spec, "default", values, file)
    store_credentials(SCENARIO, "default", {"api_key": KEY, "api_secret": "a:b"}, file)
    with pytest.raises(CredentialsMissing, match="QOLABA_API_KEY contains a colon"):
        find_credentials(QOLABA, "default", file, {"QOLABA_API_KEY": "a:b"})


def test_a_secret_cannot_be_shown_by_accident() -> None:
    secret = Secret(KEY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret]), f"{secret}"]
    assert all(KEY not in text for text in shown)
    for leak in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leak(secret)


def test_redaction_finds_the_key_in_every_dress() -> None:
    pair = base64.b64encode(f"{KEY}:{OTHER}".encode()).decode()
    texts = [KEY, f"Bearer {KEY}.", f"Basic {pair}", base64.b64encode(KEY.encode()).decode(), f"x={KEY}%20"]
    texts += [base64.b64encode(f"{'p' * n}{OTHER} and more".encode()).decode() for n in range(5)]
    texts += [json.dumps({"key": 'q"' + KEY})]
    for text in texts:
        clean = redact(text, [KEY, OTHER])
        assert KEY not in clean and OTHER not in clean and "<redacted>" in clean
    for before in range(5):
        encoded = base64.b64encode(f"{'p' * before}{OTHER} and more".encode()).decode()
        first, last = -(-before * 8 // 6), (before + len(OTHER)) * 8 // 6
        pieces = [encoded[at : at + 8] for at in range(first, last - 7)]
        assert not any(piece in redact(encoded, [KEY, OTHER]) for piece in pieces)
    assert redact("nothing here", [KEY, "", "abc"]) == "nothing here"
    nested: Any = redact_json({"a": [KEY, 1, None], KEY: {"b": True}}, [KEY])
    assert nested == {"a": ["<redacted>", 1, None], "<redacted>": {"b": True}}


def test_the_list_says_set_or_not_and_nothing_else(file: Path) -> None:
    store_credentials(QOLABA, "studio", {"api_key": KEY}, file)
    statuses = {(s.service, s.profile): s for s in list_profiles(SPECS, file, {"SCENARIO_API_KEY": OTHER})}
    assert {service for service, _ in statuses} == set(SPECS)
    assert statuses["qolaba", "studio"].is_set and not statuses["qolaba", "default"].is_set
    assert not statuses["scenario", "default"].is_set and "SECRET is not set" in statuses["scenario", "default"].origin
    assert KEY not in repr(statuses) and OTHER not in repr(statuses)


def test_the_command_stores_lists_and_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (name for spec in SPECS.values() for names in spec.variables for name in names.values()):
        monkeypatch.delenv(name, raising=False)
    answers = iter([KEY, OTHER])
    monkeypatch.setattr(command.getpass, "getpass", lambda prompt: next(answers))
    here = ["--user-directory", str(tmp_path)]
    assert command.main([*here, "set", "scenario", "--profile", "studio"]) == 0
    assert command.main(here) == 0
    assert command.main([*here, "remove", "scenario", "--profile", "studio"]) == 0
    monkeypatch.setattr(command.getpass, "getpass", lambda prompt: "not a key")
    assert command.main([*here, "set", "qolaba"]) == 1
    said = capsys.readouterr()
    assert "scenario              studio          set" in said.out
    assert "qolaba                default         not set" in said.out
    assert not any(secret in said.out + said.err for secret in (KEY, OTHER, "not a key"))


def test_every_error_about_keys_names_the_settings_and_a_command_that_runs_where_it_says(tmp_path: Path) -> None:
    """In a folder of another name, as a download has it."""
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "ControlStack-main"
    pack.parent.mkdir(parents=True)
    pack.symlink_to(Path(command.__file__).parents[2], target_is_directory=True)
    environment = {**os.environ, "QOLABA_API_KEY": "two words", "PYTHONDONTWRITEBYTECODE": "1"}
    run: dict[str, Any] = {"cwd": pack.parent, "env": environment, "capture_output": True, "text": True}
    listed = subprocess.run([sys.executable, "-m", f"{pack.name}.credentials"], **run)
    found = re.search(
        r"Enter it in ComfyUI under Settings, ControlStack, or run `python -m (\S+) set qolaba`", listed.stdout
    )
    assert found and found[1] == f"{pack.name}.credentials" and "in the folder custom_nodes." in listed.stdout
    assert subprocess.run([sys.executable, "-m", found[1], "remove", "qolaba"], **run).returncode == 0


@pytest.mark.parametrize("name", ["controlstack.credentials", "controlstack.api_clients.credentials"])
def test_the_documented_command_runs(tmp_path: Path, name: str) -> None:
    listing = [sys.executable, "-I", "-W", "error", "-m", name, "--user-directory", str(tmp_path), "list"]
    result = subprocess.run(listing, capture_output=True, text=True, check=True)
    assert "modelslab" in result.stdout and result.stderr == ""


def test_without_secrets_a_text_stays_as_it_is() -> None:
    assert redact("nothing to hide", []) == redact("nothing to hide", ["abc"]) == "nothing to hide"
