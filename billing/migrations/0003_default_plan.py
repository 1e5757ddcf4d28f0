import datetime as dt

from django.db import migrations

# 15 micro-units a character: 15.00 EUR for the included million.
PLAN = {"name": "Standard", "included_units": 1_000_000, "overage_units": 0}
PRICE = {
    "effective_from": dt.datetime(2000, 1, 1, tzinfo=dt.timezone.utc),
    "currency": "EUR",
    "unit_price_micros": 15,
}


def add_default_plan(apps, schema_editor):
    alias = schema_editor.connection.alias
    plan, _ = apps.get_model("billing", "Plan").objects.using(alias).get_or_create(slug="standard", defaults=PLAN)
    apps.get_model("billing", "PriceVersion").objects.using(alias).get_or_create(
        plan=plan, meter="characters", version=1, defaults=PRICE
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_walls")]

    # Nothing to undo: a price is added, never removed.
    operations = [migrations.RunPython(add_default_plan, migrations.RunPython.noop)]
