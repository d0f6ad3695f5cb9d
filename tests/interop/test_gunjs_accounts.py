"""SEA accounts of unmodified gun.js clients, made on one and used on another, through the relay only."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from tests.interop.conftest import NewClient
from tests.interop.gunjs import MISSING, GunClient, Relay

pytestmark = [pytest.mark.node, pytest.mark.anyio]

PASSWORD = "correct horse 🐎 battery"


@pytest.fixture
def alias() -> str:
    """A name that no other test has taken."""
    return f"ann-{secrets.token_hex(4)}"


async def signed_up(client: GunClient, alias: str) -> str:
    """Make the account and sign in on the same client; returns the public key."""
    pub = await client.sign_up(alias, PASSWORD)
    assert await client.sign_in(alias, PASSWORD) == pub
    return pub


async def test_a_user_signs_up_on_one_client_and_in_on_another(
    alice: GunClient, bob: GunClient, alias: str
) -> None:
    pub = await signed_up(alice, alias)
    assert await bob.sign_in(alias, PASSWORD) == pub


async def test_an_account_outlives_its_maker_and_a_kill_of_the_relay(
    relay: Relay, new_client: NewClient, alias: str
) -> None:
    async with new_client("maker") as maker:
        pub = await signed_up(maker, alias)
        await maker.put([{"user": None}, "city"], "Hanoi")
    await relay.restart()
    async with new_client("second device") as device:
        assert await device.sign_in(alias, PASSWORD) == pub
        assert (await device.once([{"user": None}, "city"])).value == "Hanoi"


async def test_a_wrong_password_is_refused(alice: GunClient, bob: GunClient, alias: str) -> None:
    await signed_up(alice, alias)
    with pytest.raises(RuntimeError, match="Wrong user or password"):
        await bob.sign_in(alias, "something else")


async def test_a_taken_name_is_refused(alice: GunClient, bob: GunClient, alias: str) -> None:
    await signed_up(alice, alias)
    await bob.until_once([f"~@{alias}"], (await alice.once([f"~@{alias}"])).value)
    with pytest.raises(RuntimeError, match="already created"):
        await bob.sign_up(alias, PASSWORD)


async def test_signed_data_is_read_and_verified_by_others(
    alice: GunClient, bob: GunClient, alias: str
) -> None:
    pub = await signed_up(alice, alias)
    await alice.put([{"user": None}, "profile"], {"name": "Ann 😀", "age": 41, "score": 0.1})
    profile: list[str | dict[str, str]] = [{"user": pub}, "profile"]
    assert (await bob.once([*profile, "name"])).value == "Ann 😀"
    assert (await bob.once([*profile, "age"])).value == 41
    assert (await bob.once([*profile, "score"])).value == 0.1
    assert (await bob.once([{"user": pub}, "alias"])).value == alias


async def test_the_relay_hands_out_signed_values_as_they_were_signed(
    alice: GunClient, new_client: NewClient, alias: str
) -> None:
    pub = await signed_up(alice, alias)
    await alice.put([{"user": None}, "word"], "signed")
    async with new_client("reader", tap=True) as reader:
        assert (await reader.once([{"user": pub}, "word"])).value == "signed"
        stored = next(
            node["word"]
            for frame in reader.frames("in", '"word"')
            for node in _nodes(json.loads(frame))
            if "word" in node
        )
        packed = json.loads(stored)
        state = (await reader.memory(f"~{pub}")).states["word"]
        whole = int(state) if state == int(state) else state
        proof = {"m": {"#": f"~{pub}", ".": "word", ":": packed[":"], ">": whole}, "s": packed["~"]}
        assert (await reader.sea("verify", proof, pub))[":"] == "signed"


def _nodes(frame: Any) -> list[dict[str, str]]:
    messages = frame if isinstance(frame, list) else [frame]
    return [node for message in messages for node in message.get("put", {}).values()]


async def test_a_change_on_one_device_is_heard_on_the_other(
    alice: GunClient, bob: GunClient, alias: str
) -> None:
    pub = await signed_up(alice, alias)
    await alice.put([{"user": None}, "status"], "one")
    heard = await alice.listen([{"user": pub}, "status"])
    await heard.until_value("one")
    assert await bob.sign_in(alias, PASSWORD) == pub
    await bob.put([{"user": None}, "status"], "two")
    await heard.until_value("two")


async def test_a_set_in_user_space_is_mapped_by_others(alice: GunClient, bob: GunClient, alias: str) -> None:
    pub = await signed_up(alice, alias)
    heard = await bob.listen([{"user": pub}, "posts", {"map": None}, "text"])
    await alice.set([{"user": None}, "posts"], {"text": "first"})
    await heard.until_value("first")
    await alice.set([{"user": None}, "posts"], {"text": "second"})
    await heard.until_value("second")


async def test_encrypted_data_is_opened_by_the_one_it_is_for(
    alice: GunClient, bob: GunClient, alias: str
) -> None:
    ann_pub = await signed_up(alice, alias)
    bo_pub = await signed_up(bob, f"{alias}-friend")
    bo_epub = (await alice.once([{"user": bo_pub}, "epub"])).value
    secret = await alice.sea("secret", bo_epub, await alice.command("user_pair"))
    await alice.put([{"user": None}, "letter"], await alice.sea("encrypt", "for your eyes", secret))
    sealed = (await bob.once([{"user": ann_pub}, "letter"])).value
    ann_epub = (await bob.once([{"user": ann_pub}, "epub"])).value
    opened = await bob.sea("secret", ann_epub, await bob.command("user_pair"))
    assert await bob.sea("decrypt", sealed, opened) == "for your eyes"
    assert await bob.sea("decrypt", sealed, "another key") is MISSING


async def test_a_certificate_lets_somebody_else_write(
    alice: GunClient, bob: GunClient, new_client: NewClient, alias: str
) -> None:
    ann_pub = await signed_up(alice, alias)
    bo_pub = await signed_up(bob, f"{alias}-friend")
    pair = await alice.command("user_pair")
    certificate = await alice.sea("certify", bo_pub, {"*": "inbox"}, pair)
    await bob.put([{"user": ann_pub}, "inbox", "bo"], "may I?", cert=certificate)
    async with new_client("reader") as reader:
        assert (await reader.once([{"user": ann_pub}, "inbox", "bo"])).value == "may I?"


async def test_content_named_by_its_hash_is_kept(alice: GunClient, bob: GunClient) -> None:
    text = f"frozen {secrets.token_hex(4)}"
    digest = await alice.sea("work", text, None, None, {"name": "SHA-256"})
    await alice.put(["#", digest], text)
    assert (await bob.once(["#", digest])).value == text
