"""`import_model SOURCE... --name NAME`: published checkpoints become a model folder under MODEL_PATH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from synthesis.engines.errors import EngineError
from synthesis.engines.gpt_sovits.importing import ImportReport, import_sources


class Command(BaseCommand):
    help = (
        "Converts checkpoints of upstream's and of Hugging Face's into safetensors under MODEL_PATH. Each SOURCE is a "
        "file, or a folder of one model; what it holds is found out. A transformer (.ckpt) and a SoVITS file (.pth) "
        "become the voice model NAME; HuBERT, RoBERTa and the speaker network become shared extractors. Files that "
        "would run code are refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE")
        parser.add_argument("--name", help="of the voice model: small letters, digits, _ and -")
        parser.add_argument("--version", dest="model_version", help="fail unless the SoVITS file is of this version")
        parser.add_argument("--replace", action="store_true", help="replace what has this name")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """`--version` is the model's here; Django's own is `manage.py version`."""
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = import_sources(
                options["sources"],
                model_path=settings.MODEL_PATH,
                name=options["name"],
                version=options["model_version"],
                replace=options["replace"],
            )
        except EngineError as error:
            raise CommandError(error.message) from error
        except OSError as error:
            raise CommandError(f"{error.filename or settings.MODEL_PATH}: {error.strerror}.") from error
        print_report(report, self.stdout)


def print_report(report: ImportReport, output: OutputWrapper) -> None:
    for source in report.sources:
        kind = " ".join(filter(None, (source.checkpoint.kind, source.checkpoint.version)))
        output.write(f"{source.path.name}: {kind}, {_megabytes(source.size_bytes)}, sha256 {source.sha256}")
    for folder in report.folders:
        kind = " ".join(filter(None, (folder.kind, folder.version)))
        done = "was there already" if folder.was_there else "imported"
        output.write(f"{kind} {done}: {folder.folder}, {_megabytes(folder.size_bytes)}, digest {folder.digest}")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
