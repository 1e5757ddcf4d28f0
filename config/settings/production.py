"""Real servers behind a proxy that speaks TLS. Every variable of .env.example marked `required` must be set."""

from config import env
from config.settings.base import *  # noqa: F403

ALLOWED_HOSTS = [host for host in env.require("ALLOWED_HOSTS").split(",") if host]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SECURE_SSL_REDIRECT = env.read_bool("SECURE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^(livez|readyz|metrics)$"]  # probes speak plain HTTP inside the cluster
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
