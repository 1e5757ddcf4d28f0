"""The form of keys, and keys through HTTP."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from tenants import api_keys, services
from tenants.errors import InvalidRequestError, NotFoundError
from tenants.models import ApiKey, AuditEvent, Scope, TenantStatus
from tenants.scoping import tenant_scope
from tests.factories import make_api_key, make_tenant

PROTECTED = "/v1/voices"


def get(secret: str | None, client: Client | None = None) -> Any:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return (client or Client()).get(PROTECTED, headers=headers)


def answer(secret: str | None) -> tuple[int, str]:
    response = get(secret)
    return response.status_code, response.json().get("code", "")


def test_a_generated_key_has_the_documented_form() -> None:
    key = api_keys.generate_key()
    kind, live, prefix, rest = key.secret.split("_")
    assert (kind, live, len(prefix), len(rest)) == ("ct", "live", 12, 43 + 6)
    assert api_keys.parse_prefix(key.secret) == prefix == key.prefix


@given(position=st.integers(min_value=0, max_value=69), letter=st.sampled_from("0Aaz_"))
def test_a_typo_never_passes_the_checksum(position: int, letter: str) -> None:
    secret = "ct_live_0123456789ab_" + "7" * 43
    secret += api_keys._checksum(secret)
    changed = secret[:position] + letter + secret[position + 1 :]
    assert (api_keys.parse_prefix(changed) is None) == (changed != secret)


@pytest.mark.usefixtures("database")
class TestThroughHttp:
    def test_a_good_key_is_let_in(self) -> None:
        assert get(make_api_key(make_tenant())).status_code == 200

    def test_no_key(self) -> None:
        response = get(None)
        assert (response.status_code, response.json()["code"]) == (401, "missing_api_key")
        assert response["WWW-Authenticate"] == "Bearer"
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["request_id"] == response["X-Request-Id"]

    def test_a_bad_checksum_is_refused_without_the_database(self, django_assert_num_queries: Any) -> None:
        secret = make_api_key(make_tenant())
        wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        with django_assert_num_queries(0):
            assert answer(wrong) == (401, "invalid_api_key")

    def test_an_unknown_key_with_a_good_checksum(self) -> None:
        make_tenant()
        assert answer(api_keys.generate_key().secret) == (401, "invalid_api_key")

    def test_the_right_id_with_another_secret(self) -> None:
        secret = make_api_key(make_tenant())
        body = secret[:21] + ("1" * 43)
        assert answer(body + api_keys._checksum(body)) == (401, "invalid_api_key")

    def test_another_pepper_refuses_the_key(self, settings: Any) -> None:
        secret = make_api_key(make_tenant())
        settings.KEY_PEPPER = "another pepper of some length 0123456789"
        assert answer(secret) == (401, "invalid_api_key")

    def test_an_expired_key(self) -> None:
        tenant = make_tenant()
        secret = make_api_key(tenant, expires_in_days=1)
        with tenant_scope(tenant.id):
            ApiKey.objects.update(expires_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        assert answer(secret) == (401, "api_key_expired")

    def test_revocation_acts_at_once(self) -> None:
        tenant = make_tenant()
        issued = services.create_api_key(tenant_id=tenant.id, name="x", actor="test")
        assert get(issued.secret).status_code == 200
        services.revoke_api_key(tenant_id=tenant.id, key_id=issued.api_key.id, actor="test")
        assert answer(issued.secret) == (401, "api_key_revoked")

    def test_a_suspended_tenant(self) -> None:
        tenant = make_tenant()
        secret = make_api_key(tenant)
        services.set_tenant_status(tenant_id=tenant.id, status=TenantStatus.SUSPENDED, actor="test", reason="abuse")
        assert answer(secret) == (403, "tenant_suspended")
        services.set_tenant_status(tenant_id=tenant.id, status=TenantStatus.ACTIVE, actor="test", reason="mended")
        assert get(secret).status_code == 200

    def test_a_missing_scope_is_named(self) -> None:
        response = get(make_api_key(make_tenant(), scopes=[Scope.SPEECH_WRITE]))
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert response.json()["needed_scope"] == "voices:read"

    def test_an_address_that_fails_too_often_is_slowed_down(self) -> None:
        answers = [answer("ct_live_nonsense") for _ in range(25)]
        assert answers[0] == (401, "invalid_api_key")
        assert answers[-1] == (429, "rate_limited")
        response = get("ct_live_nonsense")
        assert int(response["Retry-After"]) >= 1

    def test_use_is_stamped_at_most_once_a_minute(self) -> None:
        tenant = make_tenant()
        secret = make_api_key(tenant)
        get(secret)
        with tenant_scope(tenant.id):
            first = ApiKey.objects.get().last_used_at
        time.sleep(0.01)
        get(secret)
        with tenant_scope(tenant.id):
            assert ApiKey.objects.get().last_used_at == first is not None

    def test_a_request_id_is_kept_when_well_formed(self) -> None:
        assert Client().get(PROTECTED, headers={"X-Request-Id": "my-request-0001"})["X-Request-Id"] == "my-request-0001"
        assert Client().get(PROTECTED, headers={"X-Request-Id": "<script>"})["X-Request-Id"] != "<script>"

    def test_unknown_paths_and_methods_are_problems_too(self) -> None:
        secret = make_api_key(make_tenant())
        response = Client().get("/v1/nothing-here")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        response = Client().put(PROTECTED, headers={"Authorization": f"Bearer {secret}"})
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.usefixtures("database")
class TestServices:
    def test_secrets_are_not_stored(self, role_connection: Any) -> None:
        secret = make_api_key(make_tenant())
        row = role_connection("migrate").execute("SELECT k::text FROM tenants_apikey k").fetchone()[0]
        assert secret.rsplit("_", 1)[1][:43] not in row
        assert secret.encode().hex() not in row

    def test_an_unknown_scope_or_a_life_under_a_day_is_refused(self) -> None:
        tenant = make_tenant()
        refused: tuple[dict[str, Any], ...] = ({"scopes": ["root"]}, {"scopes": []}, {"expires_in_days": 0})
        for fields in refused:
            with pytest.raises(InvalidRequestError):
                services.create_api_key(tenant_id=tenant.id, name="x", actor="test", **fields)
        with tenant_scope(tenant.id):
            assert not ApiKey.objects.exists()

    def test_another_tenants_key_cannot_be_revoked(self) -> None:
        mine, other = make_tenant(), make_tenant()
        theirs = services.create_api_key(tenant_id=other.id, name="x", actor="test").api_key
        with pytest.raises(NotFoundError):
            services.revoke_api_key(tenant_id=mine.id, key_id=theirs.id, actor="test")

    @pytest.mark.parametrize("slug", ["", "Upper", "-x", "x-", "a b", "ü", "a" * 64, "x\n"])
    def test_a_malformed_slug_is_refused(self, slug: str) -> None:
        with pytest.raises(InvalidRequestError):
            services.create_tenant(slug=slug, name="", actor="test")

    def test_acts_are_audited(self) -> None:
        tenant = make_tenant()
        issued = services.create_api_key(tenant_id=tenant.id, name="x", actor="staff:ada")
        services.revoke_api_key(tenant_id=tenant.id, key_id=issued.api_key.id, actor="staff:bob")
        with tenant_scope(tenant.id):
            acts = set(AuditEvent.objects.values_list("actor", "action"))
        assert {("staff:ada", "api_key.create"), ("staff:bob", "api_key.revoke"), ("test", "tenant.create")} <= acts
