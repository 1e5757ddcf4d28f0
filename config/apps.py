from django.apps import AppConfig
from django.conf import settings


class ConfigConfig(AppConfig):
    name = "config"
    verbose_name = "Configuration"

    def ready(self) -> None:
        from config import celery  # noqa: F401  (makes it the app that `shared_task` binds to)
        from config.logging import log_uncaught
        from config.metrics import serve_metrics

        if settings.CANTORIA_PROCESS != "manage":  # commands talk to the person who typed them
            log_uncaught()
        if settings.CANTORIA_PROCESS == "dispatcher":  # a worker does it when Celery says that it is one
            serve_metrics()
