from django.db import migrations

from tenants.rls import add_tenant_foreign_key, allow_dispatch, enable_row_security

# The state machine, where no code can get round it.
JOB_STEPS = migrations.RunSQL(
    sql="""
    CREATE FUNCTION synthesis_job_step() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.status IN ('succeeded', 'failed', 'cancelled', 'expired') THEN
            IF (NEW.status, NEW.fence, NEW.attempt, NEW.artifact_key, NEW.artifact_sha256, NEW.audio_frames,
                NEW.delivered_chars, NEW.billable_chars, NEW.finished_at, NEW.error_code)
               IS DISTINCT FROM
               (OLD.status, OLD.fence, OLD.attempt, OLD.artifact_key, OLD.artifact_sha256, OLD.audio_frames,
                OLD.delivered_chars, OLD.billable_chars, OLD.finished_at, OLD.error_code)
            THEN
                RAISE EXCEPTION 'job % has ended as %', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END IF;
        IF NEW.status <> OLD.status AND NOT (
            (OLD.status = 'queued' AND NEW.status IN ('running', 'failed', 'cancelled', 'expired'))
            OR (OLD.status = 'running' AND NEW.status IN ('queued', 'succeeded', 'failed', 'cancelled', 'expired'))
        ) THEN
            RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.status, NEW.status
                USING ERRCODE = 'restrict_violation';
        END IF;
        IF NEW.fence < OLD.fence OR NEW.attempt < OLD.attempt THEN
            RAISE EXCEPTION 'the fence of job % never falls', OLD.id USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER synthesis_job_steps BEFORE UPDATE ON synthesis_job
    FOR EACH ROW EXECUTE FUNCTION synthesis_job_step();
    """,
    reverse_sql="DROP TRIGGER synthesis_job_steps ON synthesis_job; DROP FUNCTION synthesis_job_step();",
)


class Migration(migrations.Migration):
    dependencies = [
        ("synthesis", "0001_initial"),
        ("tenants", "0002_walls"),
        ("billing", "0002_walls"),
        ("voices", "0002_walls"),
    ]

    operations = [
        enable_row_security("synthesis_job", grants="SELECT, INSERT, UPDATE"),
        enable_row_security("synthesis_job_attempt", grants="SELECT, INSERT, UPDATE"),
        allow_dispatch(
            "synthesis_job",
            columns=(
                "id", "tenant_id", "kind", "queue", "status", "created_at", "run_after", "deadline_at",
                "attempt", "fence", "lease_until", "started_at",
            ),
        ),
        add_tenant_foreign_key("synthesis_job", "voice_id", references="voices_voice"),
        add_tenant_foreign_key("synthesis_job", "api_key_id", references="tenants_apikey"),
        add_tenant_foreign_key("synthesis_job_attempt", "job_id", references="synthesis_job"),
        add_tenant_foreign_key("billing_reservation", "job_id", references="synthesis_job"),
        add_tenant_foreign_key("billing_ledgerentry", "job_id", references="synthesis_job"),
        JOB_STEPS,
    ]
