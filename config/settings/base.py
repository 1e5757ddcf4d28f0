"""What every installation has in common. The other files of this folder hold differences only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config import env, logging
from config.database import ALIASES, PROCESSES, URL_VARIABLES, databases
from config.settings.unfold import UNFOLD as UNFOLD  # a setting, read by its name
from tenants.storage_url import check_storage_url

BASE_DIR = Path(__file__).resolve().parents[2]
VAR_DIR = BASE_DIR / "var"

# Which part of the service this process is; the start commands set it. It decides which database roles are held.
CANTORIA_PROCESS = env.read_choice("CANTORIA_PROCESS", PROCESSES, default="manage")


def databases_from_environment() -> dict[str, dict[str, Any]]:
    """The connections of this kind of process; a missing variable stops start-up by name."""
    urls = {alias: env.require(URL_VARIABLES[alias]) for alias in ALIASES[CANTORIA_PROCESS]}
    return databases(CANTORIA_PROCESS, urls, pool_size=env.read_int("DATABASE_POOL_SIZE", 10))


SECRET_KEY = env.require("SECRET_KEY")
KEY_PEPPER = env.require("KEY_PEPPER")
MASTER_KEY = env.require("MASTER_KEY")  # base64 of 32 bytes; wraps the data key of every voice
STORAGE_URL = check_storage_url(env.require("STORAGE_URL"))
REDIS_URL = env.require("REDIS_URL")
DATABASES = databases_from_environment()
DATABASE_ROUTERS = ["tenants.routing.TenantRouter"]
ATOMIC_REQUESTS = False  # tenant_scope opens the transactions; audio flows outside them
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ENGINE = env.read_choice("ENGINE", ("parametric", "gpt_sovits"), default="parametric")
MODEL_PATH = Path(env.read("MODEL_PATH", str(VAR_DIR / "models")))
MODEL = env.read("MODEL")  # of voices and tenants that name none
ENGINE_DEVICE = env.read("ENGINE_DEVICE")  # as torch names it; unset: the first GPU, or else the CPU
ENGINE_PRECISION = env.read_choice("ENGINE_PRECISION", ("fp32", "bf16", "fp16"), default="fp32")
HOP_LENGTH = env.read_int("HOP_LENGTH", 0) or None  # samples; only to be checked against the model
SAMPLE_RATE = env.read_int("SAMPLE_RATE", 24_000)  # Hz, of audio whose request names none
DISPATCH = env.read_choice("DISPATCH", ("celery", "function", "auto"), default="celery")

INSTALLED_APPS = [
    "config",
    "synthesis",
    "voices",
    "billing",
    "tenants",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin.apps.SimpleAdminConfig",  # only the admin process discovers the pages (config.admin_urls)
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

_IS_ADMIN = CANTORIA_PROCESS == "admin"
ALL_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "tenants.api.request_ids.RequestIdMiddleware",
    "config.middleware.ObserveRequestsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
# A synchronous link in the chain would put a thread between a streaming view and its listener.
WEB_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "tenants.api.request_ids.RequestIdMiddleware",
    "config.middleware.ObserveRequestsMiddleware",
]
MIDDLEWARE = WEB_MIDDLEWARE if CANTORIA_PROCESS == "web" else ALL_MIDDLEWARE
ROOT_URLCONF = "config.admin_urls" if _IS_ADMIN else "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = _IS_ADMIN
ALLOWED_HOSTS = env.read_list("ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]"))
CSRF_TRUSTED_ORIGINS = env.read_list("CSRF_TRUSTED_ORIGINS")

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
SESSION_COOKIE_NAME = "cantoria_session"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

# An upload is limited by voices' intake; this is how much of a body stays in memory before it goes to a file.
FILE_UPLOAD_MAX_MEMORY_SIZE = 1 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 << 20  # bytes of a JSON or form body

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # no `collectstatic`: the admin's files come from the packages
FORMAT_MODULE_PATH = "config.formats"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenants.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["tenants.api.permissions.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["tenants.api.parsers.JsonBodyParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "tenants.api.pagination.CursorPages",
    "EXCEPTION_HANDLER": "tenants.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Cantoria",
    "DESCRIPTION": "Voice cloning over REST: upload a few seconds of a voice, turn text into speech in that voice.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/v1",
    "ENUM_NAME_OVERRIDES": {"JobStatus": "synthesis.models.JobStatus"},  # voices have a status of their own
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "synthesis.api.schema.add_streaming_routes",  # they are no DRF views
    ],
    "SWAGGER_UI_DIST": "SIDECAR",  # the page works without the internet
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

# Celery carries a doorbell, not the job: a lost or doubled message costs nothing.
_LISTENS = CANTORIA_PROCESS == "worker"
CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_DEFAULT_QUEUE = "housekeeping"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = env.read_int("WORKER_THREADS", 4)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 30.0
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker waits for Redis for ever
CELERY_BROKER_CONNECTION_TIMEOUT = 1.0
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
    "visibility_timeout": 1800,
    "socket_keepalive": True,
    "health_check_interval": 25,
    # A request that rings must not wait for a dead Redis; a worker's blocking read takes longer.
    "socket_timeout": 30.0 if _LISTENS else 0.2,
    "socket_connect_timeout": 1.0 if _LISTENS else 0.1,
    **({} if _LISTENS else {"max_retries": 0}),
}
CELERY_VISIBILITY_TIMEOUT = 1800

# Of a worker or dispatcher: where Prometheus reads their numbers. The web and the admin process answer /metrics.
METRICS_HOST = env.read("METRICS_HOST", "127.0.0.1")
METRICS_PORT = env.read_int("METRICS_PORT", 0)  # 0: nowhere
BUILD_REVISION = env.read("BUILD_REVISION")  # of the image, shown among the numbers

LOG_LEVEL = env.read_choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
LOGGING = logging.configuration(level=LOG_LEVEL)
LOGGING_CONFIG = "config.logging.configure"
