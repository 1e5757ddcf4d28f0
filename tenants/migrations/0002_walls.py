from django.conf import settings
from django.db import migrations

from tenants.rls import APP_ROLE, APPEND_ONLY, READ_WRITE, STAFF_ROLE, enable_row_security, make_append_only

FORBID_CHANGE = migrations.RunSQL(
    sql="""
    CREATE FUNCTION forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are added, never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$;
    """,
    reverse_sql="DROP FUNCTION forbid_change();",
)

# The one hole in row security: authentication needs one key's row before the tenant is known. One row wide, read-only,
# with a fixed search_path, and only for the app role.
AUTH_KEY = migrations.RunSQL(
    sql=f"""
    CREATE FUNCTION auth_key(wanted text)
    RETURNS TABLE (
        id uuid, tenant_id uuid, tenant_status varchar, digest bytea, pepper_version smallint, scopes varchar[],
        expires_at timestamptz, revoked_at timestamptz
    )
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT k.id, k.tenant_id, t.status, k.digest, k.pepper_version, k.scopes, k.expires_at, k.revoked_at
        FROM public.tenants_apikey k JOIN public.tenants_tenant t ON t.id = k.tenant_id
        WHERE k.prefix = wanted
    $$;
    REVOKE ALL ON FUNCTION auth_key(text) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION auth_key(text) TO {APP_ROLE};
    """,
    reverse_sql="DROP FUNCTION auth_key(text);",
)

STAFF_TABLES = (
    "auth_user",
    "auth_user_groups",
    "auth_user_user_permissions",
    "auth_group",
    "auth_group_permissions",
    "auth_permission",
    "django_content_type",
    "django_session",
    "django_admin_log",
)

STAFF_SITE = migrations.RunSQL(
    sql=f"GRANT {READ_WRITE} ON {', '.join(STAFF_TABLES)} TO {STAFF_ROLE};"
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {STAFF_ROLE};",
    reverse_sql=f"REVOKE ALL ON {', '.join(STAFF_TABLES)} FROM {STAFF_ROLE};",
)


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("sessions", "0001_initial"),
    ]

    operations = [
        FORBID_CHANGE,
        enable_row_security("tenants_tenant", grants="SELECT, INSERT, UPDATE", tenant_column="id"),
        enable_row_security("tenants_membership"),
        enable_row_security("tenants_apikey", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("tenants_idempotencyrecord"),
        enable_row_security("tenants_auditevent", grants=APPEND_ONLY),
        make_append_only("tenants_auditevent"),
        AUTH_KEY,
        STAFF_SITE,
    ]
