"""Builds the op library with CMake. Everything else about the package is in pyproject.toml."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
# Read from the environment: csrc/amber/cuda/cuda.cmake, third_party/cutlass.cmake.
SETTINGS = [
    "AMBER_CUDA",
    "AMBER_CUTLASS_DIR",
    "AMBER_EMBED_PTX",
    "AMBER_KERNELS",
    "AMBER_STRICT",
    "TORCH_CUDA_ARCH_LIST",
]
GIB_PER_JOB = 5  # one SM90 sparse GEMM takes up to 5 GB to compile


def build_jobs() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory / GIB_PER_JOB)))


def torch_dir() -> Path:
    """The folder of the installed torch, whose headers are needed, without importing it."""
    # pip hides the environment's packages from an isolated build; its folder is known. So torch need not come twice.
    sys.path.append(sysconfig.get_path("purelib"))
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit(
            "amber_ext: torch is not installed, and its headers are needed to build; type: pip install torch"
        )
    return Path(spec.origin).parent


def torch_version(torch: Path) -> str:
    scope: dict[str, object] = {}
    exec((torch / "version.py").read_text(), scope)
    return str(scope["__version__"])


class CMakeBuild(build_ext):
    def run(self) -> None:
        # pip need not have this environment's tools in PATH, and another cmake would build all anew.
        tools = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        torch = torch_dir()
        build_dir = ROOT / os.environ.get("AMBER_BUILD_DIR", "build/package")
        lib_dir = (Path(self.build_lib) if not self.inplace else ROOT).resolve()
        subprocess.run(
            [
                "cmake", "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja",
                "-DCMAKE_BUILD_TYPE=Release",
                "-DAMBER_BUILD_OPS=ON",
                "-DAMBER_BUILD_TESTS=OFF",
                *(f"-D{name}={os.environ.get(name, '')}" for name in SETTINGS),
                f"-DAMBER_TORCH_DIR={torch}",
                f"-DAMBER_TORCH_VERSION={torch_version(torch)}",
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-DCMAKE_INSTALL_PREFIX={lib_dir}",
            ],
            check=True,
            env=tools,
        )  # fmt: skip
        subprocess.run(
            [
                "cmake",
                "--build",
                str(build_dir),
                "--target",
                "install/strip",
                "--parallel",
                str(build_jobs()),
            ],
            check=True,
            env=tools,
        )


class StableWheel(bdist_wheel):
    """One wheel for every Python: the library uses torch's stable ABI, and nothing of Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# Before pip has looked at what amber_ext needs: it would download torch first, and fail afterwards.
if "dist_info" in sys.argv:
    torch_dir()

# The one Extension makes setuptools treat the wheel as platform-specific; CMake builds it.
setup(
    ext_modules=[Extension("amber_ext.libamber_ops", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": StableWheel},
    # A wheel with CUDA kernels has another version than one without: 0.2.0+cuda (scripts/make_wheel).
    options={"egg_info": {"tag_build": os.environ.get("AMBER_LOCAL_VERSION", "")}},
)
