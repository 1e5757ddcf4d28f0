"""`manage.py sweep_objects`: orphans go, over a folder and over a real bucket; what a row names, or is young, stays."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
import pytest
from django.core.management import CommandError, call_command

from synthesis.contracts import AudioFormat
from tenants.errors import StorageKeyRefusedError, StorageUnavailableError
from tenants.ids import new_id
from tenants.models import AuditEvent
from tenants.scoping import tenant_scope
from tenants.storage import Kind, TenantStorage, open_store
from tests.object_server import BUCKET, Account, ObjectServer
from tests.synthesis.jobs import Customer, findings, work


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def account(server: ObjectServer, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Asked for before `customer`, whose voice is then in its bucket."""
    account = server.add_account(uuid.uuid4().hex)
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    settings.STORAGE_URL = server.url()
    open_store.cache_clear()
    yield account
    open_store.cache_clear()


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, settings: Any) -> Path:
    """The folder that holds the objects. Asked for before `customer`, as `account`."""
    if request.param == "file":
        settings.STORAGE_URL = tmp_path.as_uri()
        return tmp_path
    account: Account = request.getfixturevalue("account")
    return account.bucket_folder


def sweep(*arguments: str) -> list[str]:
    output = io.StringIO()
    call_command("sweep_objects", *arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue().splitlines()


def leave(customer: Customer, kind: Kind = "artifacts", content: bytes = b"torso") -> str:
    """What a process leaves that is killed before it commits."""
    storage = TenantStorage(customer.tenant.id)
    storage.save(key := storage.make_key(kind, new_id(), "wav", attempt="1-1"), content)
    return key


def age(root: Path, hours: float, keys: list[str] | None = None) -> None:
    """Let time pass for stored objects: these, or all."""
    for path in [root / key for key in keys] if keys else [path for path in root.rglob("*") if path.is_file()]:
        os.utime(path, (time.time() - hours * 3600,) * 2)
    if "objects" in root.parts[-3]:
        time.sleep(1.1)  # so long the server believes what it remembers of a folder


def sweeps(customer: Customer) -> list[AuditEvent]:
    with tenant_scope(customer.tenant.id):
        return list(AuditEvent.objects.filter(action="storage.sweep"))


def stored_keys(customer: Customer) -> set[str]:
    return {stored.key for stored in TenantStorage(customer.tenant.id).list_objects()}


def test_old_orphans_go_and_all_else_stays(root: Path, customer: Customer) -> None:
    job = customer.submit()
    work()
    named = stored_keys(customer)
    assert len(named) == 3  # a clip, a prepared voice, an artifact
    kinds: tuple[Kind, ...] = ("clips", "prepared", "artifacts", "exports")
    old = [leave(customer, kind) for kind in kinds]
    age(root, hours=24.1)
    young = leave(customer)
    age(root, hours=23.9, keys=[young])

    dry = sweep("--dry-run")
    assert sorted(dry[:-1]) == sorted(f"would delete {key} 5 bytes, 24.1 hours old" for key in old)
    assert dry[-1] == "4 orphans, 20 bytes, 0 unfinished uploads, none deleted"
    assert (stored_keys(customer), sweeps(customer)) == ({*named, *old, young}, [])

    done = sweep()
    assert sorted(done[:-1]) == sorted(f"deleted {key} 5 bytes, 24.1 hours old" for key in old)
    assert done[-1] == "4 orphans, 20 bytes, 0 unfinished uploads"
    assert stored_keys(customer) == {*named, young}
    (event,) = sweeps(customer)
    assert (event.actor, event.object_id) == ("command:sweep_objects", str(customer.tenant.id))
    assert (sorted(event.details["keys"]), event.details["size_bytes"]) == (sorted(old), 20)

    assert sweep() == ["0 orphans, 0 bytes, 0 unfinished uploads"]
    assert sweep("--grace-hours", "23")[-1] == "1 orphans, 5 bytes, 0 unfinished uploads"
    assert stored_keys(customer) == named
    done_job = customer.job(job.id)
    assert TenantStorage(customer.tenant.id).size(done_job.artifact_key) == done_job.artifact_bytes
    assert findings() == []


def test_the_torso_of_a_killed_attempt_goes_and_the_artifact_of_the_next_stays(root: Path, customer: Customer) -> None:
    job = customer.submit(audio_format=AudioFormat.WAV)
    storage = TenantStorage(customer.tenant.id)
    storage.save(torso := storage.make_key("artifacts", job.id, "wav", attempt="9-9"), b"torso")
    work()
    age(root, hours=30)
    assert [line.split()[1] for line in sweep()[:-1]] == [torso]
    assert storage.exists(customer.job(job.id).artifact_key)


def test_a_key_that_a_row_names_stays_whatever_it_looks_like(root: Path, customer: Customer) -> None:
    storage = TenantStorage(customer.tenant.id)
    storage.save(odd := f"{storage.prefix}somewhere/else", b"x")
    customer.change(customer.submit("not done yet").id, artifact_key=odd)
    age(root, hours=30)
    assert sweep() == ["0 orphans, 0 bytes, 0 unfinished uploads"]


def test_each_tenant_is_swept_in_its_own_prefix(root: Path, customer: Customer, other_customer: Customer) -> None:
    mine, theirs = leave(customer), leave(other_customer)
    age(root, hours=30)
    assert [line.split()[1] for line in sweep("--tenant", customer.tenant.slug)[:-1]] == [mine]
    assert theirs in stored_keys(other_customer)
    assert [line.split()[1] for line in sweep()[:-1]] == [theirs]
    assert (len(sweeps(customer)), len(sweeps(other_customer))) == (1, 1)


def test_a_tenant_whose_storage_fails_does_not_keep_the_others(
    root: Path, customer: Customer, other_customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(customer)
    theirs = leave(other_customer)
    age(root, hours=30)
    list_objects: Callable[..., Any] = TenantStorage.list_objects

    def fail_for_one(storage: TenantStorage, kind: Kind | None = None) -> Any:
        if storage.tenant_id == customer.tenant.id:
            raise StorageUnavailableError
        return list_objects(storage, kind)

    monkeypatch.setattr(TenantStorage, "list_objects", fail_for_one)
    output, errors = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("sweep_objects", stdout=output, stderr=errors)
    assert ended.value.code == 1
    assert errors.getvalue().strip() == f"{customer.tenant.slug}: The object storage does not answer."
    assert [line.split()[1] for line in output.getvalue().splitlines()[:-1]] == [theirs]


def begin_upload(account: Account, url: str, key: str) -> None:
    """What a process does that is killed between two parts of an artifact."""
    client = boto3.client(
        "s3",
        endpoint_url=dict(parse_qsl(urlsplit(url).query))["endpoint"],
        region_name="eu-1",
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
    )
    begun = client.create_multipart_upload(Bucket=BUCKET, Key=key)
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"half")


def test_the_parts_of_an_upload_that_was_never_completed_go(
    account: Account, settings: Any, customer: Customer, other_customer: Customer
) -> None:
    mine, theirs = (
        TenantStorage(each.tenant.id).make_key("artifacts", new_id(), "wav", attempt="1-1")
        for each in (customer, other_customer)
    )
    for key in (mine, theirs):
        begin_upload(account, settings.STORAGE_URL, key)
    only_mine = ("--tenant", customer.tenant.slug)
    assert sweep(*only_mine) == ["0 orphans, 0 bytes, 0 unfinished uploads"]  # it may be at work still
    said = [f"{mine} unfinished, 0.0 hours old", "0 orphans, 0 bytes, 1 unfinished uploads"]
    assert sweep(*only_mine, "--grace-hours=0", "--dry-run") == [f"would delete {said[0]}", f"{said[1]}, none deleted"]
    assert sweep(*only_mine, "--grace-hours=0") == [f"deleted {said[0]}", said[1]]
    assert [event.details for event in sweeps(customer)] == [{"unfinished_uploads": [mine]}]
    assert list(TenantStorage(customer.tenant.id).list_uploads()) == []
    (left,) = TenantStorage(other_customer.tenant.id).list_uploads()
    assert left.key == theirs
    with pytest.raises(StorageKeyRefusedError):
        TenantStorage(customer.tenant.id).abort_upload(left)
    for _ in range(2):
        TenantStorage(other_customer.tenant.id).abort_upload(left)
    assert list(TenantStorage(other_customer.tenant.id).list_uploads()) == []


def test_what_cannot_be_meant_is_refused(customer: Customer) -> None:
    with pytest.raises(CommandError, match="no tenant 'nobody'"):
        sweep("--tenant", "nobody")
    for hours in ("-1", "nan"):
        with pytest.raises(CommandError, match="must not be negative"):
            sweep(f"--grace-hours={hours}")


def test_an_erased_voice_leaves_nothing_in_the_bucket(root: Path, customer: Customer) -> None:
    assert len(stored_keys(customer)) == 2
    assert customer.delete(f"/v1/voices/{customer.voice_id}").status_code == 204
    assert stored_keys(customer) == set()
    assert [path for path in root.rglob("*") if path.is_file()] == []
