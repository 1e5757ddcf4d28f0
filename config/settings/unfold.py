"""The look of the admin: its name and what is in its sidebar. Every file it shows is served from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


def _item(title: str, icon: str, model: str) -> dict[str, Any]:
    """A link to the list of `model` ("app_model"), for those who may see it."""
    app, name = model.split("_")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{model}_changelist"),
        "permission": _may(f"{app}.view_{name}"),
    }


_USAGE_REPORT = {
    "title": "Usage report",
    "icon": "bar_chart",
    "link": reverse_lazy("admin:billing_usage_report"),
    "permission": _may("billing.view_ledgerentry"),
}

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Cantoria",
    "SITE_HEADER": "Cantoria",
    "SITE_SYMBOL": "graphic_eq",
    "SITE_URL": None,  # this process has no other site to return to
    "SITE_FAVICONS": [{"rel": "icon", "href": "data:,"}],  # else the browser asks for a file that is not there
    "SHOW_HISTORY": False,  # changes are in the audit trail, not in Django's own log
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Customers",
                "items": [
                    _item("Tenants", "domain", "tenants_tenant"),
                    _item("API keys", "key", "tenants_apikey"),
                    _item("Memberships", "badge", "tenants_membership"),
                ],
            },
            {
                "title": "Speech",
                "items": [
                    _item("Voices", "record_voice_over", "voices_voice"),
                    _item("Jobs", "list_alt", "synthesis_synthesisjob"),
                ],
            },
            {
                "title": "Money",
                "items": [
                    _item("Plans", "sell", "billing_plan"),
                    _item("Prices", "payments", "billing_priceversion"),
                    _item("Balances", "account_balance_wallet", "billing_balance"),
                    _item("Reservations", "hourglass_empty", "billing_reservation"),
                    _item("Ledger", "receipt_long", "billing_ledgerentry"),
                    _USAGE_REPORT,
                ],
            },
            {
                "title": "People",
                "items": [_item("Users", "person", "auth_user"), _item("Groups", "group", "auth_group")],
            },
            {"title": "Audit", "items": [_item("Audit events", "history", "tenants_auditevent")]},
        ]
    },
}
