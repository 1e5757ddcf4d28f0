"""The admin site as a person uses it: pages of all apps, the secret shown once, actions through the services."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import services as billing
from billing.models import Account
from synthesis.models import JobStatus, SynthesisJob
from tenants.models import ApiKey, AuditEvent, Tenant, TenantStatus
from tenants.scoping import tenant_scope
from tests.factories import make_job, make_tenant, make_voice
from voices.models import ConsentKind, Voice, VoiceStatus


@pytest.fixture
def staff(settings: Any) -> Client:
    """A superuser at the admin process, which has the staff connection."""
    settings.CANTORIA_PROCESS = "admin"
    settings.ROOT_URLCONF = "config.admin_urls"
    user = User.objects.db_manager("staff").create_superuser("ada", password="a long password")
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def helper(settings: Any, staff: Client) -> Client:
    """A person at the site without any permission."""
    user = User.objects.db_manager("staff").create_user("bob", password="a long password", is_staff=True)
    client = Client()
    client.force_login(user)
    return client


def names() -> list[str]:
    """URL names of every registered page."""
    import config.admin_urls  # noqa: F401  (registers the pages)

    return sorted(f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry)


OURS = ("tenants_", "billing_", "voices_", "synthesis_", "auth_")


def test_every_list_and_every_page_opens_with_rows_of_several_tenants(staff: Client) -> None:
    for _ in range(3):
        make_job(make_tenant())
    pages = [name for name in names() if name.startswith(OURS)]
    assert {"tenants_tenant", "tenants_apikey", "voices_voice", "synthesis_synthesisjob", "billing_ledgerentry"} <= set(
        pages
    )
    for name in pages:
        answer = staff.get(reverse(f"admin:{name}_changelist"))
        assert answer.status_code == 200, name
        model = next(m for m in admin.site._registry if f"{m._meta.app_label}_{m._meta.model_name}" == name)
        manager = getattr(model, "all_tenants", model._default_manager)
        row = manager.using("staff").first()
        if row is not None:
            page = staff.get(reverse(f"admin:{name}_change", args=[row.pk]))
            assert page.status_code == 200, name


@pytest.mark.parametrize("name", ["tenants_tenant", "voices_voice", "synthesis_synthesisjob", "billing_reservation"])
def test_a_list_of_more_rows_takes_no_more_queries(staff: Client, name: str) -> None:
    make_job(make_tenant())
    url = reverse(f"admin:{name}_changelist")
    staff.get(url)

    def queries() -> int:
        with CaptureQueriesContext(connections["staff"]) as captured:
            assert staff.get(url).status_code == 200
        return len(captured)

    few = queries()
    for _ in range(5):
        make_job(make_tenant())
    assert queries() == few
    assert few < 20


def test_a_tenant_is_made_with_its_account(staff: Client) -> None:
    url = reverse("admin:tenants_tenant_add")
    answer = staff.post(url, {"slug": "acme", "name": "Acme", "plan": "standard"})
    assert answer.status_code == 302
    tenant = Tenant.objects.using("staff").get(slug="acme")
    assert Account.all_tenants.using("staff").get(tenant=tenant).plan.slug == "standard"
    for slug, says in (("acme", "taken"), ("Not A Slug", "slug has")):
        again = staff.post(url, {"slug": slug, "name": "", "plan": "standard"})
        assert says in again.content.decode()
    assert Tenant.objects.using("staff").count() == 1


def test_the_secret_of_a_key_is_shown_once_and_works(staff: Client, settings: Any) -> None:
    tenant = make_tenant()
    answer = staff.post(
        reverse("admin:tenants_apikey_add"),
        {"tenant": str(tenant.id), "name": "laptop", "scopes": ["voices:read"], "expires_in_days": ""},
    )
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    secret = re.search(r"ct_live_[0-9A-Za-z_]+", answer.content.decode())
    assert secret is not None
    for url in (reverse("admin:tenants_apikey_changelist"), reverse("admin:index")):
        assert secret[0] not in staff.get(url).content.decode()
    settings.ROOT_URLCONF, settings.CANTORIA_PROCESS = "config.urls", "manage"
    assert Client().get("/v1/voices", headers={"Authorization": f"Bearer {secret[0]}"}).status_code == 200
    with tenant_scope(tenant.id):
        assert AuditEvent.objects.get(action="api_key.create").actor == "staff:ada"


def run_action(client: Client, name: str, action: str, row: Any, **data: str) -> Any:
    url = reverse(f"admin:{name}_changelist")
    return client.post(url, {"action": action, "_selected_action": [str(row.pk)], **data}, follow=True)


def test_keys_are_revoked_and_tenants_suspended_through_the_services(staff: Client) -> None:
    tenant = make_tenant()
    from tenants import services

    key = services.create_api_key(tenant_id=tenant.id, name="x", actor="test").api_key
    assert "Revoked: 1" in run_action(staff, "tenants_apikey", "revoke", key).content.decode()
    run_action(staff, "tenants_tenant", "suspend", tenant)
    with tenant_scope(tenant.id):
        assert ApiKey.objects.get().revoked_at is not None
        assert Tenant.objects.get().status == TenantStatus.SUSPENDED
        assert {"api_key.revoke", "tenant.suspend"} <= set(AuditEvent.objects.values_list("action", flat=True))


def test_erasing_asks_first(staff: Client) -> None:
    tenant = make_tenant()
    voice = make_voice(tenant)
    asked = run_action(staff, "voices_voice", "erase", voice)
    assert "cannot be undone" in asked.content.decode()
    with tenant_scope(tenant.id):
        assert Voice.objects.get().status == VoiceStatus.READY
    run_action(staff, "voices_voice", "erase", voice, confirmed="yes")
    with tenant_scope(tenant.id):
        assert Voice.objects.get().status == VoiceStatus.ERASED


def test_consent_is_withdrawn(staff: Client) -> None:
    tenant = make_tenant()
    voice = make_voice(tenant)
    run_action(staff, "voices_voice", "withdraw_consent", voice)
    with tenant_scope(tenant.id):
        assert voice.consents.latest("recorded_at").kind == ConsentKind.WITHDRAWN


def test_a_queued_job_is_cancelled(staff: Client) -> None:
    tenant = make_tenant()
    job = make_job(tenant)
    run_action(staff, "synthesis_synthesisjob", "cancel", job)
    with tenant_scope(tenant.id):
        assert SynthesisJob.objects.get().status == JobStatus.CANCELLED


@pytest.mark.parametrize(
    "name", ["billing_ledgerentry", "synthesis_synthesisjob", "voices_voice", "tenants_auditevent"]
)
def test_what_the_product_writes_is_read_only(staff: Client, name: str) -> None:
    assert staff.get(reverse(f"admin:{name}_add")).status_code == 403
    make_job(make_tenant())
    model = next(m for m in admin.site._registry if f"{m._meta.app_label}_{m._meta.model_name}" == name)
    row = model.all_tenants.using("staff").first()  # type: ignore[attr-defined]
    if row is not None:
        assert staff.post(reverse(f"admin:{name}_change", args=[row.pk]), {"name": "x"}).status_code == 403
        assert staff.post(reverse(f"admin:{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("asked", "status", "says", "body"),
    [
        (None, 200, None, b"0123456789"),
        ("bytes=4-", 206, "bytes 4-9/10", b"456789"),
        ("bytes=0-1", 206, "bytes 0-1/10", b"01"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=3-1", 200, None, b"0123456789"),
        ("nonsense", 200, None, b"0123456789"),
    ],
)
def test_a_recording_can_be_wound(asked: str | None, status: int, says: str | None, body: bytes) -> None:
    from tenants.admin import audio_response

    request = RequestFactory().get("/", headers={"Range": asked} if asked else {})
    answer = audio_response(request, io.BytesIO(b"0123456789"), content_type="audio/wav")
    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == says
    assert answer["Accept-Ranges"] == "bytes"
    assert (b"".join(answer) if answer.streaming else answer.content) == body  # type: ignore[attr-defined]


def test_a_person_without_permissions_sees_and_does_nothing(helper: Client) -> None:
    tenant = make_tenant()
    voice = make_voice(tenant)
    for name in ("tenants_apikey", "voices_voice", "synthesis_synthesisjob", "billing_ledgerentry"):
        assert helper.get(reverse(f"admin:{name}_changelist")).status_code == 403
    assert helper.get(reverse("admin:tenants_apikey_add")).status_code == 403
    assert helper.get(reverse("admin:tenants_tenant_add")).status_code == 403
    assert helper.get(reverse("admin:voices_voice_clip", args=[voice.id, 0])).status_code in {403, 404}
    run_action(helper, "voices_voice", "erase", voice, confirmed="yes")
    with tenant_scope(tenant.id):
        assert Voice.objects.get().status == VoiceStatus.READY


def test_the_site_asks_for_a_login() -> None:
    from django.test import override_settings

    with override_settings(CANTORIA_PROCESS="admin", ROOT_URLCONF="config.admin_urls"):
        answer = Client().get(reverse("admin:tenants_tenant_changelist"))
    assert answer.status_code == 302
    assert "/login/" in answer["Location"]


def test_the_usage_report_shows_and_downloads_what_the_ledger_says(staff: Client) -> None:
    tenant = make_tenant()
    job = make_job(tenant, text="twelve chars")
    with tenant_scope(tenant.id):
        billing.settle(
            tenant_id=tenant.id, job_id=job.id, used_units=12, attempt=1, api_key_id=None, voice_id=None, language="en"
        )
    url = reverse("admin:billing_usage_report")
    assert staff.get(url).status_code == 200
    query = {"tenant": str(tenant.id), "first_day": "2020-01-01", "last_day": "2120-01-01", "group_by": "language"}
    page = staff.get(url, query).content.decode()
    assert re.search(r"<td[^>]*>en</td>\s*<td[^>]*>1</td>\s*<td[^>]*>12</td>", page)
    download = staff.get(url, {**query, "format": "csv"})
    assert download["Content-Type"].startswith("text/csv")
    assert str(job.id) in download.content.decode()
    refused = staff.get(url, {**query, "last_day": "2019-01-01"}).content.decode()
    assert "comes before the first" in refused
