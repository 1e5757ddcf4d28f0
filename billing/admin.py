"""Tenants with their plan, prices, balances, the ledger (read-only) and the usage report."""

from __future__ import annotations

import io
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from billing import reports, selectors, services
from billing.models import Account, Balance, LedgerEntry, Plan, PriceVersion, Reservation
from billing.rating import format_amount
from billing.reports import CONTENT_TYPES, ReportFormat
from billing.selectors import UsageGroup
from tenants import services as tenants
from tenants.admin import TENANT_FILTER, ReadOnlyAdmin, StaffAdmin, staff_actor, tenant_choices
from tenants.errors import ApplicationError
from tenants.models import Tenant, TenantStatus


def plan_choices() -> list[tuple[str, str]]:
    return list(Plan.objects.using("staff").values_list("slug", "name"))


def price_of_one(price: PriceVersion) -> str:
    return f"{price.currency} {format_amount(price.unit_price_micros)} per {price.meter.removesuffix('s')}"


class TenantForm(forms.Form):
    slug = forms.CharField(
        max_length=63, widget=UnfoldAdminTextInputWidget, help_text="Lower-case letters, digits, hyphens."
    )
    name = forms.CharField(max_length=200, required=False, widget=UnfoldAdminTextInputWidget)
    plan = forms.ChoiceField(choices=plan_choices, widget=UnfoldAdminSelectWidget)


class ReportForm(forms.Form):
    tenant = forms.ChoiceField(choices=tenant_choices, widget=UnfoldAdminSelectWidget)
    first_day = forms.DateField(widget=UnfoldAdminDateWidget, help_text="In the tenant's time zone, included.")
    last_day = forms.DateField(widget=UnfoldAdminDateWidget, help_text="Included.")
    group_by = forms.ChoiceField(choices=UsageGroup.choices, widget=UnfoldAdminSelectWidget)
    format = forms.ChoiceField(
        choices=[("", ""), *((f, f) for f in ReportFormat)], required=False, widget=forms.HiddenInput
    )

    def clean(self) -> dict[str, Any]:
        chosen: dict[str, Any] = super().clean() or {}
        first, last = chosen.get("first_day"), chosen.get("last_day")
        if first and last and first > last:
            self.add_error("last_day", "The last day comes before the first.")
        return chosen


@admin.register(Tenant)
class TenantAdmin(ReadOnlyAdmin):
    list_display = ("slug", "name", "state", "plan", "created_at")
    list_filter = ("status",)
    search_fields = ("slug", "name", "id")
    actions = ("suspend", "reactivate")
    fields = ("id", "slug", "name", "status", "plan", "created_at")
    readonly_fields: ClassVar = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        account = Account.all_tenants.using("staff").filter(tenant=OuterRef("pk"))
        rows: QuerySet[Tenant] = super().get_queryset(request)
        return rows.annotate(plan_name=Subquery(account.values("plan__name")[:1]))

    @display(description="status", ordering="status", label={"active": "success", "suspended": "danger"})  # type: ignore[untyped-decorator]
    def state(self, tenant: Tenant) -> str:
        return tenant.status

    @admin.display(description="plan")
    def plan(self, tenant: Any) -> str:
        return tenant.plan_name or "none"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tenants.add_tenant")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A tenant and its account, in one transaction."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = TenantForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                with transaction.atomic():
                    tenant = tenants.create_tenant(
                        slug=form.cleaned_data["slug"], name=form.cleaned_data["name"], actor=staff_actor(request)
                    )
                    services.open_account(tenant_id=tenant.id, plan_slug=form.cleaned_data["plan"])
            except ApplicationError as error:
                form.add_error("slug", error.message)
            except IntegrityError:
                form.add_error("slug", "This slug is taken.")
            else:
                self.message_user(request, f"Tenant {tenant.slug} was made.", messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:tenants_tenant_change", args=[tenant.id]))
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "New tenant", "form": form}
        return TemplateResponse(request, "billing/admin/new_tenant.html", context)

    @admin.action(description="Suspend the chosen tenants", permissions=["change_status"])
    def suspend(self, request: HttpRequest, rows: QuerySet[Tenant]) -> None:
        self._set_status(request, rows, TenantStatus.SUSPENDED)

    @admin.action(description="Reactivate the chosen tenants", permissions=["change_status"])
    def reactivate(self, request: HttpRequest, rows: QuerySet[Tenant]) -> None:
        self._set_status(request, rows, TenantStatus.ACTIVE)

    def has_change_status_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tenants.change_tenant")

    def _set_status(self, request: HttpRequest, rows: QuerySet[Tenant], status: TenantStatus) -> None:
        def act(tenant: Tenant) -> None:
            tenants.set_tenant_status(
                tenant_id=tenant.id, status=status, actor=staff_actor(request), reason="by hand in the admin"
            )

        self.apply(request, rows, act, done=f"Now {status.label.lower()}")


@admin.register(Plan)
class PlanAdmin(StaffAdmin):
    list_display = ("slug", "name", "included", "overage", "max_running_jobs", "max_concurrent_streams")
    search_fields = ("slug", "name")

    @admin.display(description="characters a month", ordering="included_units")
    def included(self, plan: Plan) -> str:
        return f"{plan.included_units:,}"

    @admin.display(description="allowed beyond", ordering="overage_units")
    def overage(self, plan: Plan) -> str:
        return f"{plan.overage_units:,}"


@admin.register(PriceVersion)
class PriceVersionAdmin(StaffAdmin):
    """Prices are added, never changed."""

    list_display = ("plan", "meter", "version", "effective_from", "unit_price")
    list_select_related = ("plan",)
    list_filter = ("plan", "meter")

    @admin.display(description="price", ordering="unit_price_micros")
    def unit_price(self, price: PriceVersion) -> str:
        return price_of_one(price)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Balance)
class BalanceAdmin(ReadOnlyAdmin):
    list_display = ("tenant", "month", "meter", "used", "held", "limit", "beyond")
    list_select_related = ("tenant",)
    list_filter = ("period", TENANT_FILTER)
    search_fields = ("tenant__slug",)
    fields = list_display
    readonly_fields: ClassVar = fields

    @admin.display(description="month", ordering="period")
    def month(self, balance: Balance) -> str:
        return f"{balance.period:%Y-%m}"

    @admin.display(description="used", ordering="settled")
    def used(self, balance: Balance) -> str:
        return f"{balance.settled:,}"

    @admin.display(description="held for running jobs", ordering="reserved")
    def held(self, balance: Balance) -> str:
        return f"{balance.reserved:,}"

    @admin.display(description="included", ordering="limit_units")
    def limit(self, balance: Balance) -> str:
        return f"{balance.limit_units:,}"

    @admin.display(description="allowed beyond", ordering="overage_units")
    def beyond(self, balance: Balance) -> str:
        return f"{balance.overage_units:,}"


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = ("job_id", "tenant", "units", "stands", "created_at", "ended_at")
    list_select_related = ("tenant",)
    list_filter = ("state", TENANT_FILTER)
    search_fields = ("job_id", "tenant__slug")

    @display(description="state", ordering="state", label={"held": "warning", "settled": "success"})  # type: ignore[untyped-decorator]
    def stands(self, reservation: Reservation) -> str:
        return reservation.state


@admin.register(LedgerEntry)
class LedgerAdmin(ReadOnlyAdmin):
    list_display = ("seq", "tenant", "kind", "units", "amount", "used_at", "job_id", "reason")
    list_select_related = ("tenant", "price")
    list_filter = ("kind", "period", TENANT_FILTER)
    search_fields = ("job_id", "tenant__slug", "reason")
    date_hierarchy = "used_at"
    ordering = ("-recorded_at", "-seq")
    fields = (
        "seq", "tenant", "kind", "meter", "units", "amount", "rate", "period", "used_at", "used_on", "recorded_at",
        "job_id", "attempt", "api_key_id", "voice_id", "language", "reverses_seq", "reason", "actor",
    )  # fmt: skip
    readonly_fields: ClassVar = fields

    @admin.display(description="price")
    def rate(self, entry: LedgerEntry) -> str:
        return price_of_one(entry.price)

    @admin.display(description="amount", ordering="amount_micros")
    def amount(self, entry: LedgerEntry) -> str:
        return f"{entry.currency} {format_amount(entry.amount_micros)}"

    def get_urls(self) -> list[URLPattern]:
        report = path("report/", self.admin_site.admin_view(self.report_view), name="billing_usage_report")
        return [report, *super().get_urls()]

    def report_view(self, request: HttpRequest) -> HttpResponse:
        """Usage of one tenant between two days, on the page or as the same bytes the API gives."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = ReportForm(request.GET or None)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Usage report",
            "form": form,
            "formats": list(ReportFormat),
        }
        if form.is_valid():
            chosen = form.cleaned_data
            tenant_id = UUID(chosen["tenant"])
            days = {"first_day": chosen["first_day"], "last_day": chosen["last_day"]}
            if chosen["format"]:
                return self._download(tenant_id, ReportFormat(chosen["format"]), days)
            rows = selectors.usage(tenant_id=tenant_id, group_by=UsageGroup(chosen["group_by"]), **days)
            context["rows"] = [(row, format_amount(row.amount_micros)) for row in rows]
            totals: dict[str, tuple[int, int, int]] = {}
            for row in rows:
                requests, characters, micros = totals.get(row.currency, (0, 0, 0))
                totals[row.currency] = (
                    requests + row.requests,
                    characters + row.characters,
                    micros + row.amount_micros,
                )
            context["totals"] = [
                (currency, requests, characters, format_amount(micros))
                for currency, (requests, characters, micros) in sorted(totals.items())
            ]
        return TemplateResponse(request, "billing/admin/usage_report.html", context)

    def _download(self, tenant_id: UUID, report_format: ReportFormat, days: dict[str, Any]) -> HttpResponse:
        body = io.BytesIO()
        reports.write_report(tenant_id=tenant_id, report_format=report_format, output=body, **days)
        name = f"usage-{days['first_day']}-{days['last_day']}.{report_format}"
        return HttpResponse(
            body.getvalue(),
            content_type=CONTENT_TYPES[report_format],
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
        )
