"""The base of every admin page, and the pages of people, API keys and the audit trail.

The admin is a process of its own with the role `cantoria_staff`: pages read all tenants' rows through it, and changes
go through the services, which open the tenant's scope on the application's connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from tenants import services
from tenants.errors import ApplicationError
from tenants.models import ApiKey, AuditEvent, Membership, Scope, Tenant


def staff_actor(request: HttpRequest) -> str:
    """How audit events name the person at the admin site."""
    return f"staff:{request.user.get_username()}"


TENANT_FILTER = ("tenant", AutocompleteSelectFilter)  # a field to type in: there may be thousands


def table_of(rows: Iterable[tuple[str, object]]) -> SafeString:
    """Rows of label and value, for a field that is more than one value."""
    lines = format_html_join(
        "",
        '<tr><th scope="row" class="align-top font-semibold pr-4 py-1 text-left whitespace-nowrap">{}</th>'
        '<td class="py-1">{}</td></tr>',
        rows,
    )
    return format_html("<table>{}</table>", lines) if lines else format_html("{}", "none")


def audio_response(request: HttpRequest, audio: IO[bytes], *, content_type: str) -> HttpResponseBase:
    """A whole recording, or from the byte on that the player asks for: without ranges it cannot be wound."""
    size = audio.seek(0, 2)
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""), re.ASCII)
    first = int(asked[1]) if asked else 0
    last = min(int(asked[2]), size - 1) if asked and asked[2] else size - 1
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-store"}
    if asked and first >= size:
        return HttpResponse(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    if asked and first <= last:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        audio.seek(first)
        if last < size - 1:
            piece = audio.read(last - first + 1)
            return HttpResponse(piece, status=206, content_type=content_type, headers=headers)
        return FileResponse(audio, status=206, content_type=content_type, headers=headers)
    audio.seek(0)
    return FileResponse(audio, content_type=content_type, headers=headers)


class StaffAdmin(ModelAdmin):  # type: ignore[misc]
    """Rows of all tenants, through the staff connection. Nothing is deleted by the admin's own button."""

    list_per_page = 50
    list_filter_submit = True
    show_full_result_count = False  # a second count(*) over every row

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        manager = getattr(self.model, "all_tenants", self.model._default_manager)
        rows: QuerySet[Any] = manager.using("staff").order_by(*self.get_ordering(request) or self.model._meta.ordering)
        return rows

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def apply(self, request: HttpRequest, rows: Iterable[Any], act: Callable[[Any], object], *, done: str) -> None:
        """Run a service for each chosen row; say what was done and what was refused, and why."""
        if not self.has_view_permission(request) or not request.user.has_perm(self._change_permission()):
            raise PermissionDenied
        changed = 0
        for row in rows:
            try:
                act(row)
            except ApplicationError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
            else:
                changed += 1
        if changed:
            self.message_user(request, f"{done}: {changed}", messages.SUCCESS)

    def _change_permission(self) -> str:
        return f"{self.opts.app_label}.change_{self.opts.model_name}"


class ReadOnlyAdmin(StaffAdmin):
    """Rows that only the product itself writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def tenant_choices() -> list[tuple[str, str]]:
    return [(str(id_), slug) for id_, slug in Tenant.objects.using("staff").values_list("id", "slug")]


class ApiKeyForm(forms.Form):
    tenant = forms.ChoiceField(choices=tenant_choices, widget=UnfoldAdminSelectWidget)
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in Scope.values],
        initial=Scope.values,
        widget=forms.CheckboxSelectMultiple,
        help_text="What the key may do.",
    )
    expires_in_days = forms.IntegerField(
        label="Expires in",
        min_value=1,
        max_value=3650,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Days. Empty: never.",
    )


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("key", "name", "tenant", "state", "may", "created_at", "last_used_at")
    list_select_related = ("tenant",)
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), TENANT_FILTER)
    search_fields = ("prefix", "name", "tenant__slug")
    actions = ("revoke",)
    fields = (
        "key",
        "name",
        "tenant",
        "state",
        "may",
        "created_by",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )
    readonly_fields: ClassVar = fields

    @display(description="key", ordering="prefix")  # type: ignore[untyped-decorator]
    def key(self, key: ApiKey) -> str:
        return str(key)

    @display(description="state", label={"active": "success", "expired": "warning", "revoked": "danger"})  # type: ignore[untyped-decorator]
    def state(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"

    @display(description="may")  # type: ignore[untyped-decorator]
    def may(self, key: ApiKey) -> str:
        return "everything" if set(key.scopes) == set(Scope.values) else ", ".join(key.scopes)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("tenants.add_apikey")

    @admin.action(description="Revoke the chosen keys")
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> None:
        def act(key: ApiKey) -> None:
            services.revoke_api_key(tenant_id=key.tenant_id, key_id=key.id, actor=staff_actor(request))

        self.apply(request, rows, act, done="Revoked")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Issue a key and show its secret in this one answer: it is in no session, cookie or message."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ApiKeyForm(request.POST or None)
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "New API key", "form": form}
        template = "tenants/admin/new_api_key.html"
        if request.method == "POST" and form.is_valid():
            issued = services.create_api_key(
                tenant_id=UUID(form.cleaned_data["tenant"]),
                name=form.cleaned_data["name"],
                scopes=form.cleaned_data["scopes"],
                expires_in_days=form.cleaned_data["expires_in_days"],
                actor=staff_actor(request),
            )
            context |= {"secret": issued.secret, "api_key": issued.api_key, "title": "API key made"}
            template = "tenants/admin/api_key_secret.html"
        response = TemplateResponse(request, template, context)
        response["Cache-Control"] = "no-store"
        return response


@admin.register(Membership)
class MembershipAdmin(StaffAdmin):
    list_display = ("user", "tenant", "role", "created_at")
    list_select_related = ("user", "tenant")
    list_filter = ("role",)
    search_fields = ("user__username", "tenant__slug")
    autocomplete_fields: ClassVar = ["user", "tenant"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("tenants.delete_membership")


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("recorded_at", "tenant", "actor", "action", "object_type", "object_id")
    list_select_related = ("tenant",)
    list_filter = ("action", TENANT_FILTER)
    search_fields = ("actor", "object_id", "tenant__slug")
    date_hierarchy = "recorded_at"
    fields = ("recorded_at", "tenant", "actor", "action", "object_type", "object_id", "request_id", "particulars")
    readonly_fields: ClassVar = fields

    @display(description="details")  # type: ignore[untyped-decorator]
    def particulars(self, event: AuditEvent) -> SafeString:
        return table_of((name.replace("_", " "), value) for name, value in event.details.items())


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass
