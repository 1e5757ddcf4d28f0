from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
    verbose_name = "Configuration"

    def ready(self) -> None:
        from config import celery  # noqa: F401  (makes it the app that `shared_task` binds to)
