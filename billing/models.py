"""Plans, prices, balances and the ledger. Money moves in two phases: reserve, then settle or release.

Amounts of money are integers in micro-units of the currency (1 EUR = 1,000,000); units are whole numbers of a meter.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import ExtractMonth, ExtractYear, Now

from tenants.ids import new_id
from tenants.scoping import TenantScopedModel


class Meter(models.TextChoices):
    CHARACTERS = "characters"


class Plan(models.Model):
    """What a tenant may use in a period. Shared by all tenants."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    included_units = models.PositiveBigIntegerField()  # characters per billing period
    overage_units = models.PositiveBigIntegerField(default=0)  # allowed beyond it; 0 for prepaid
    max_running_jobs = models.PositiveIntegerField(default=4)
    max_concurrent_streams = models.PositiveIntegerField(default=8)

    class Meta:
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug


class PriceVersion(models.Model):
    """The price of one unit from an instant on. Rows are added, never changed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="prices")
    meter = models.CharField(max_length=32, choices=Meter.choices)
    version = models.PositiveIntegerField()
    effective_from = models.DateTimeField()
    currency = models.CharField(max_length=3)
    unit_price_micros = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering: ClassVar = ["plan", "meter", "version"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="price_version_once", fields=["plan", "meter", "version"]),
            models.CheckConstraint(name="price_meter_known", condition=Q(meter__in=Meter.values)),
            models.CheckConstraint(name="price_currency_is_iso_4217", condition=Q(currency__regex=r"^[A-Z]{3}$")),
        ]

    def __str__(self) -> str:
        return f"{self.plan_id} {self.meter} v{self.version}"


class Account(TenantScopedModel):
    """A tenant's billing side: its plan, its time zone, and the head of its ledger."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="+")
    time_zone = models.CharField(max_length=64, default="UTC")  # IANA name; periods are its calendar months
    last_seq = models.PositiveBigIntegerField(default=0, editable=False)
    last_hash = models.BinaryField(max_length=32, default=bytes(32), editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [models.UniqueConstraint(name="one_account_per_tenant", fields=["tenant"])]

    def __str__(self) -> str:
        return str(self.tenant_id)


class Balance(TenantScopedModel):
    """The cache of one period: what is used and what is held. The ledger and the held reservations are the truth.

    The limit is in the WHERE clause of the reserve statement, not a constraint: a plan may be lowered below what is
    used.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    period = models.DateField()  # first day of the month in the tenant's time zone
    meter = models.CharField(max_length=32, choices=Meter.choices)
    limit_units = models.BigIntegerField()
    overage_units = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    settled = models.BigIntegerField(default=0)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-period", "meter"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="one_balance_per_period", fields=["tenant", "period", "meter"]),
            models.CheckConstraint(name="balance_reserved_not_negative", condition=Q(reserved__gte=0)),
            models.CheckConstraint(name="balance_settled_not_negative", condition=Q(settled__gte=0)),
        ]

    def __str__(self) -> str:
        return f"{self.period} {self.meter}"


class ReservationState(models.TextChoices):
    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"


class Reservation(TenantScopedModel):
    """Units held for one job until it ends. Never released by age: only the job's end decides."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    job_id = models.UUIDField()  # synthesis adds the composite foreign key
    period = models.DateField()  # of acceptance: a job accepted at 23:59:59 settles into that month
    used_on = models.DateField()  # calendar day of acceptance in the tenant's zone of that moment
    meter = models.CharField(max_length=32, choices=Meter.choices)
    units = models.BigIntegerField()
    price = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+")  # the quote's price
    state = models.CharField(max_length=16, choices=ReservationState.choices, default=ReservationState.HELD)
    created_at = models.DateTimeField(editable=False)  # acceptance, by the database's clock
    ended_at = models.DateTimeField(null=True)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="one_reservation_per_job", fields=["tenant", "job_id", "meter"]),
            models.CheckConstraint(name="reservation_units_positive", condition=Q(units__gt=0)),
            models.CheckConstraint(name="reservation_state_known", condition=Q(state__in=ReservationState.values)),
            models.CheckConstraint(
                name="reservation_ended_iff_not_held",
                condition=Q(state=ReservationState.HELD, ended_at=None)
                | (~Q(state=ReservationState.HELD) & Q(ended_at__isnull=False)),
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                name="reservation_held", fields=["tenant", "period"], condition=Q(state=ReservationState.HELD)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.units} {self.meter} for {self.job_id}"


class EntryKind(models.TextChoices):
    USAGE = "usage"
    REVERSAL = "reversal"
    ADJUSTMENT = "adjustment"


class LedgerEntry(TenantScopedModel):
    """One line of the append-only ledger.

    `seq` is gapless per tenant and grows in commit order, because it is taken under the account's row lock: a report
    that has read up to a seq has missed nothing below it. `hash` chains each entry to the one before.

    `units` and `amount_micros` are signed: a reversal carries the negated figures of the entry it names, so a plain sum
    over any entries is what was used. `used_at` is the instant of acceptance and `used_on` its calendar day in the
    tenant's zone, kept because the zone may change: a report reads days, never a zone.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    seq = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=16, choices=EntryKind.choices)
    meter = models.CharField(max_length=32, choices=Meter.choices)
    units = models.BigIntegerField()
    price = models.ForeignKey(PriceVersion, on_delete=models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    amount_micros = models.BigIntegerField()
    period = models.DateField()
    job_id = models.UUIDField(null=True)
    attempt = models.PositiveIntegerField(null=True)
    # Opaque dimensions of the report; billing knows nothing else about them.
    api_key_id = models.UUIDField(null=True)
    voice_id = models.UUIDField(null=True)
    language = models.CharField(max_length=16, blank=True)
    reverses_seq = models.PositiveBigIntegerField(null=True)
    reason = models.CharField(max_length=500, blank=True)
    actor = models.CharField(max_length=200, blank=True)
    used_at = models.DateTimeField()
    used_on = models.DateField()
    recorded_at = models.DateTimeField()  # clock_timestamp() of the insert
    prev_hash = models.BinaryField(max_length=32)
    hash = models.BinaryField(max_length=32)

    class Meta(TenantScopedModel.Meta):
        verbose_name_plural = "ledger entries"
        ordering: ClassVar = ["tenant", "seq"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="ledger_seq_once", fields=["tenant", "seq"]),
            models.UniqueConstraint(
                name="one_usage_per_job", fields=["tenant", "job_id", "meter"], condition=Q(kind=EntryKind.USAGE)
            ),
            models.UniqueConstraint(
                name="one_reversal", fields=["tenant", "reverses_seq"], condition=Q(kind=EntryKind.REVERSAL)
            ),
            models.CheckConstraint(name="ledger_kind_known", condition=Q(kind__in=EntryKind.values)),
            models.CheckConstraint(
                name="usage_names_its_job",
                condition=~Q(kind=EntryKind.USAGE) | Q(job_id__isnull=False, units__gte=0, amount_micros__gte=0),
            ),
            models.CheckConstraint(
                name="reversal_names_its_entry",
                condition=Q(kind=EntryKind.REVERSAL, reverses_seq__isnull=False)
                | (~Q(kind=EntryKind.REVERSAL) & Q(reverses_seq=None)),
            ),
            models.CheckConstraint(
                name="ledger_period_is_month_of_use",
                condition=Q(period__day=1, used_on__month=ExtractMonth("period"), used_on__year=ExtractYear("period")),
            ),
        ]
        indexes: ClassVar = [
            models.Index(F("tenant"), F("used_on"), F("seq"), name="ledger_by_day"),
            models.Index(F("tenant"), F("period"), F("meter"), name="ledger_by_period"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind} {self.units}"
