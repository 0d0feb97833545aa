"""What a frozen folder leaves out of what PyInstaller would take in, each with the reason."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

PICTURE_PLUGINS = frozenset(
    {
        "AvifImagePlugin",
        "BmpImagePlugin",
        "GifImagePlugin",
        "Jpeg2KImagePlugin",
        "JpegImagePlugin",
        "MpoImagePlugin",
        "PngImagePlugin",
        "PpmImagePlugin",
        "QoiImagePlugin",
        "TiffImagePlugin",
        "WebPImagePlugin",
    }
)
"""Pillow's decoders that the runtime uses (``sigrun.decoders``), and MPO, which the JPEG decoder imports."""

PACKAGES = frozenset(
    {
        "PIL",
        "PySide6",
        "numpy",
        "onnxruntime",
        "photo_desk",
        "psutil",
        "pynvml",
        "sentencepiece",
        "shiboken6",
        "sigrun",
        "sigrun_hwcheck",
        "sigrun_recipes",
    }
)
"""The installed packages that go in. All others stay out, whoever imports them where it can: a folder is the same
whatever else is installed beside."""
EXTRAS = {
    "heif": frozenset({"pillow_heif", "_pillow_heif"}),
    "parquet": frozenset({"pyarrow"}),
    "search": frozenset({"usearch", "numkong", "tqdm"}),
    "serve": frozenset(
        {"starlette", "uvicorn", "h11", "anyio", "idna", "click", "sniffio", "typing_extensions"}
    ),
}
"""Further packages that go in with an extra of Sigrun, if it is asked for. Why not by default: pillow-heif's wheels
hold an encoder under the GPL (docs/freezing.md); pyarrow is larger than all the rest; usearch brings 55 MB for
approximate search alone, and the exact one needs nothing; apps seldom want an HTTP API."""


@dataclass(frozen=True)
class Rule:
    """What is left out.

    Attributes:
        pattern: a module with all below it, or a pattern of paths in the folder (``*`` matches slashes too).
        why: the reason, in a few words.
        unless: patterns of paths that stay although ``pattern`` matches them.
        extra: the extra of Sigrun that takes it in after all, if it is asked for.
    """

    pattern: str
    why: str
    unless: tuple[str, ...] = ()
    extra: str | None = None


MODULES = (
    Rule("tkinter", "no window is Tk's"),
    Rule("_tkinter", "no window is Tk's"),
    Rule("idlelib", "an editor"),
    Rule("lib2to3", "rewrites Python 2"),
    Rule("ensurepip", "nothing is installed into the folder"),
    Rule("venv", "nothing is installed into the folder"),
    Rule("distutils", "builds packages"),
    Rule("doctest", "tests"),
    Rule("test", "Python's own tests"),
    Rule("pydoc", "shows help in a Python shell"),
    Rule("pydoc_data", "shows help in a Python shell"),
    Rule("pdb", "a debugger"),
    Rule("readline", "there is no Python shell"),
    Rule("curses", "there is no text window"),
    Rule("xmlrpc", "nothing is fetched"),
    Rule("numpy.f2py", "compiles Fortran"),
    Rule("numpy.distutils", "builds packages"),
    Rule("numpy.fft", "no Fourier transforms"),
    Rule("numpy.polynomial", "no polynomials"),
    Rule("numpy.ctypeslib", "no C of our own"),
    Rule("numpy.testing", "tests"),
    Rule("numpy.tests", "tests"),
    Rule("numpy._core.tests", "tests"),
    Rule("numpy.conftest", "tests"),
    Rule("PIL.ImageQt", "pictures reach the window as bytes"),
    Rule("PIL.ImageTk", "no window is Tk's"),
    Rule("PIL._imagingtk", "no window is Tk's"),
    Rule("PIL._tkinter_finder", "no window is Tk's"),
    Rule("PIL.ImageShow", "starts other programs"),
    Rule("PIL.ImageGrab", "takes pictures of the screen"),
    Rule("PIL.ImageFont", "no text is drawn"),
    Rule("PIL._imagingft", "no text is drawn; FreeType and HarfBuzz go with it"),
    Rule("PIL.ImageMorph", "unused"),
    Rule("PIL._imagingmorph", "unused"),
    Rule("onnxruntime.transformers", "rewrites graphs of other models"),
    Rule("onnxruntime.quantization", "quantizes ONNX files"),
    Rule("onnxruntime.tools", "converts ONNX files"),
    Rule("onnxruntime.datasets", "example models"),
    Rule("onnxruntime.backend", "another interface"),
    Rule("sentencepiece.sentencepiece_model_pb2", "needs protobuf; the export's"),
    Rule("sentencepiece.sentencepiece_pb2", "needs protobuf; the export's"),
    Rule("sigrun_exporters", "the export is not in the folder"),
    Rule("ssl", "nothing is fetched", extra="serve"),
    Rule("_ssl", "nothing is fetched", extra="serve"),
    Rule("PySide6.QtNetwork", "nothing is fetched"),
    Rule("PySide6.QtQml", "the window is made of widgets"),
    Rule("PySide6.QtQuick", "the window is made of widgets"),
    Rule("PySide6.QtPdf", "no PDF is shown"),
    Rule("PySide6.QtOpenGL", "the window is made of widgets"),
    Rule("PySide6.QtSql", "no database is used"),
    Rule("PySide6.QtTest", "tests"),
    Rule("PySide6.QtDBus", "no other program is talked to"),
)
"""Modules that are not followed, although something imports them where it can."""

FILES = (
    Rule("onnxruntime/capi/libonnxruntime.so.*", "a second copy of the library, for C programs"),
    Rule("onnxruntime/capi/onnxruntime.dll", "a second copy of the library, for C programs"),
    Rule("onnxruntime/capi/libonnxruntime.*.dylib", "a second copy of the library, for C programs"),
    Rule("onnxruntime/ThirdPartyNotices.txt", "kept once, in licences/"),
    Rule("*.dist-info/*", "installers read it", ("*.dist-info/METADATA",)),
    Rule("*/tests/*", "tests"),
    Rule("*.pyi", "types, for whoever writes code"),
    Rule("*.h", "headers, for whoever compiles"),
    Rule("sentencepiece/*.cc", "source code"),
    Rule("PySide6/Qt/translations/*", "the app speaks for itself"),
    Rule("PySide6/translations/*", "the app speaks for itself"),
    Rule("PySide6/Qt/qml/*", "the window is made of widgets"),
    Rule("PySide6/qml/*", "the window is made of widgets"),
    Rule(
        "PySide6/*plugins/platforms/*",
        "screens of telephones, televisions and servers",
        ("*qxcb*", "*qwayland*", "*qoffscreen*", "*qwindows*", "*qcocoa*"),
    ),
    Rule("PySide6/*plugins/imageformats/*", "Pillow decodes pictures"),
    Rule("PySide6/*plugins/platformthemes/*", "a look of its own: GTK would come along, 30 libraries"),
    Rule("PySide6/*plugins/platforminputcontexts/*", "on-screen keyboards bring Qt Quick", ("*compose*",)),
    Rule("PySide6/*plugins/egldeviceintegrations/*", "screens without a desktop"),
    Rule("PySide6/*plugins/generic/*", "touch screens without a desktop"),
    Rule("PySide6/*plugins/networkinformation/*", "nothing is fetched"),
    Rule("PySide6/*plugins/tls/*", "nothing is fetched"),
    Rule("PySide6/*plugins/vectorimageformats/*", "Qt Quick's"),
    Rule("PySide6/*plugins/xcbglintegrations/*", "the window is made of widgets, painted without OpenGL"),
    Rule("PySide6/*plugins/wayland-graphics-integration-*/*", "the window is painted without OpenGL"),
    Rule("PySide6/opengl32sw.dll", "OpenGL in software, 20 MB, for windows of OpenGL"),
)
"""Files that PyInstaller's own rules would take in."""


def excluded_modules(
    installed: Iterable[str], plugins: Iterable[str], extras: Iterable[str] = ()
) -> list[str]:
    """Names for PyInstaller's ``excludes``.

    Args:
        installed: names of all installed packages.
        plugins: Pillow's plugins that there are; those that the runtime does not use are left out.
        extras: extras of Sigrun that are taken in.

    Raises:
        ValueError: there is no such extra.
    """
    wanted = set(extras)
    if wanted - EXTRAS.keys():
        raise ValueError(
            f"there is no extra {sorted(wanted - EXTRAS.keys())}; there are: {', '.join(EXTRAS)}"
        )
    going = PACKAGES.union(*(EXTRAS[extra] for extra in wanted))
    foreign = sorted(name for name in set(installed) - going if name.isidentifier())
    unused = [f"PIL.{name}" for name in sorted(set(plugins) - PICTURE_PLUGINS)]
    return [rule.pattern for rule in MODULES if rule.extra not in wanted] + foreign + unused


def rule_for(path: str) -> Rule | None:
    """The rule by which a file is left out; none if it stays.

    Args:
        path: where it would lie in the folder, with either kind of slash.
    """
    path = re.sub(r"[\\/]+", "/", path)
    for rule in FILES:
        if fnmatch.fnmatchcase(path, rule.pattern) and not any(
            fnmatch.fnmatchcase(path, stays) for stays in rule.unless
        ):
            return rule
    return None
