from django.db import migrations

from tenants.rls import APPEND_ONLY, enable_row_security, make_append_only, share_table


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial"), ("tenants", "0002_walls")]

    operations = [
        share_table("billing_plan"),
        share_table("billing_priceversion", staff_grants=APPEND_ONLY),
        make_append_only("billing_priceversion"),
        enable_row_security("billing_account", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("billing_balance", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("billing_reservation", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("billing_ledgerentry", grants=APPEND_ONLY),
        make_append_only("billing_ledgerentry"),
    ]
