"""`fetch_models`: downloads upstream's published files and imports them, ready to speak."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from synthesis.engines.errors import EngineError
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.downloads import download, unpack_zip
from synthesis.engines.gpt_sovits.errors import ModelFileError, NetworkUnavailableError
from synthesis.engines.gpt_sovits.importing import import_sources, parse_version
from synthesis.engines.gpt_sovits.model_folder import extractor_folder
from synthesis.engines.gpt_sovits.models import CONFIG_FILE, TEXT_FOLDER, is_model_name, list_models
from synthesis.engines.gpt_sovits.published import (
    EXTRACTOR_FILES,
    HUGGING_FACE,
    TEXT_FILES,
    VOICE_FILES,
    PublishedFile,
    extractors_of,
)
from synthesis.management.commands.import_model import print_report

_DOWNLOAD_FOLDER = ".downloads"
_BAR_CHARS = 30


class Command(BaseCommand):
    help = (
        "Downloads the published files of one model version and imports them under MODEL_PATH; what is there already "
        "is kept. A broken download goes on where it stopped. HF_ENDPOINT or --mirror names a mirror of Hugging Face."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--version", dest="model_version", default=ModelVersion.V2_PRO_PLUS, help="default: %(default)s"
        )
        parser.add_argument("--name", help="of the voice model; default: the version in small letters")
        parser.add_argument("--text-data", action="store_true", help="also the optional files of the text front ends")
        parser.add_argument(
            "--list", action="store_true", help="only say what would be fetched, from where and whereto"
        )
        parser.add_argument("--replace", action="store_true", help="fetch and import again what is there")
        parser.add_argument(
            "--mirror", default=os.environ.get("HF_ENDPOINT") or HUGGING_FACE, help="default: %(default)s"
        )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """`--version` is the model's here; Django's own is `manage.py version`."""
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._fetch(**options)
        except NetworkUnavailableError as error:
            raise CommandError(
                f"No network: {error.message} Copy the files that `fetch_models --list` names onto this machine "
                "and run `import_model` with them."
            ) from error
        except EngineError as error:
            raise CommandError(error.message) from error
        except OSError as error:
            raise CommandError(f"{error.filename or settings.MODEL_PATH}: {error.strerror}.") from error

    def _fetch(self, *, model_version: str, name: str | None, text_data: bool, replace: bool, **options: Any) -> None:
        version, mirror = parse_version(model_version), options["mirror"]
        name = name or version.lower()
        if not is_model_name(name):
            raise ModelFileError(f"{name!r} cannot name a model: small letters, digits, _ and -, at most 64.")
        voice = VOICE_FILES[version] if replace or name not in list_models(settings.MODEL_PATH) else ()
        kinds = [
            kind
            for kind in extractors_of(version)
            if replace or not (extractor_folder(settings.MODEL_PATH, kind) / CONFIG_FILE).is_file()
        ]
        models = [*voice, *(file for kind in kinds for file in EXTRACTOR_FILES[kind])]
        texts = [file for file in TEXT_FILES if text_data and (replace or not _is_there(file))]
        if not models and not texts:
            self.stdout.write(f"Everything is there already in {settings.MODEL_PATH}.")
            return
        if options["list"]:
            self._list(models, texts, mirror)
            return
        downloads = settings.MODEL_PATH / _DOWNLOAD_FOLDER
        for file in models:
            self._download(file, downloads / file.target, mirror)
        if models:
            sources = dict.fromkeys(_source(downloads, file) for file in models)
            report = import_sources(
                list(sources),
                model_path=settings.MODEL_PATH,
                name=name,
                version=version if voice else None,
                replace=replace,
            )
            print_report(report, self.stdout)
        for file in texts:
            self._fetch_text(file, downloads, mirror)
        shutil.rmtree(downloads, ignore_errors=True)

    def _list(self, models: Iterable[PublishedFile], texts: Iterable[PublishedFile], mirror: str) -> None:
        for file in models:
            self.stdout.write(f"{file.megabytes:7.1f} MB  {file.url(mirror)}")
        for file in texts:
            self.stdout.write(f"{file.megabytes:7.1f} MB  {file.url(mirror)}  ->  {_text_target(file)}")

    def _fetch_text(self, file: PublishedFile, downloads: Path, mirror: str) -> None:
        target = _text_target(file)
        fetched = downloads / TEXT_FOLDER / file.name
        self._download(file, fetched, mirror)
        if file.suffixes:
            names = unpack_zip(fetched, target, suffixes=file.suffixes)
            self.stdout.write(f"{file.name}: {', '.join(names)} in {target}")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(target)
            self.stdout.write(f"{file.name}: {target}")

    def _download(self, file: PublishedFile, target: Path, mirror: str) -> None:
        progress = _Progress(self, file.name)
        download(file.url(mirror), target, digest=file.digest, on_progress=progress.show)
        progress.finish()


class _Progress:
    """A bar that moves on a terminal; elsewhere a line at each tenth."""

    def __init__(self, command: BaseCommand, name: str) -> None:
        self._output = command.stderr
        self._name = name
        self._shown = -1  # tenths, or per cent on a terminal

    def show(self, done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        steps = 100 if self._output.isatty() else 10
        step = int(share * steps)
        if step == self._shown:
            return
        self._shown = step
        filled = int(share * _BAR_CHARS)
        sizes = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
        bar = f"{self._name} [{'#' * filled}{'.' * (_BAR_CHARS - filled)}] {share:4.0%} {sizes}"
        self._write(f"\r{bar}\x1b[K" if self._output.isatty() else f"{bar}\n")

    def finish(self) -> None:
        if self._output.isatty() and self._shown >= 0:
            self._write("\n")

    def _write(self, text: str) -> None:
        # Not OutputWrapper's own writing: it colours stderr as an error.
        self._output.write(text, style_func=str, ending="")
        self._output.flush()


def _source(downloads: Path, file: PublishedFile) -> Path:
    """What `import_model` is given: the folder of a Hugging Face model, or the file."""
    in_folder = any(file in files and len(files) > 1 for files in EXTRACTOR_FILES.values())
    return (downloads / file.target).parent if in_folder else downloads / file.target


def _text_target(file: PublishedFile) -> Path:
    path: Path = settings.MODEL_PATH / TEXT_FOLDER / file.target
    return path


def _is_there(file: PublishedFile) -> bool:
    target = _text_target(file)
    if file.suffixes:  # a folder, in which another file may lie as well
        return any(entry.name.endswith(file.suffixes) for entry in target.iterdir()) if target.is_dir() else False
    return target.is_file()
