from django.db import migrations

from tenants.rls import APPEND_ONLY, add_tenant_foreign_key, enable_row_security, make_append_only


class Migration(migrations.Migration):
    dependencies = [("voices", "0001_initial"), ("tenants", "0002_walls")]

    operations = [
        enable_row_security("voices_voice", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("voices_voicekey", grants="SELECT, INSERT, DELETE"),
        enable_row_security("voices_referenceclip"),
        enable_row_security("voices_consent", grants=APPEND_ONLY),
        make_append_only("voices_consent"),
        enable_row_security("voices_preparedvoice", grants="SELECT, INSERT, DELETE"),
        add_tenant_foreign_key("voices_voicekey", "voice_id", references="voices_voice"),
        add_tenant_foreign_key("voices_referenceclip", "voice_id", references="voices_voice"),
        add_tenant_foreign_key("voices_consent", "voice_id", references="voices_voice"),
        add_tenant_foreign_key("voices_preparedvoice", "voice_id", references="voices_voice"),
    ]
