"""Builds the C++ parts with CMake. Everything else about the package is in pyproject.toml."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
# Read from the environment: csrc/amber/cuda/cuda.cmake, third_party/cutlass.cmake.
SETTINGS = ["AMBER_CUDA", "TORCH_CUDA_ARCH_LIST", "AMBER_EMBED_PTX", "AMBER_CUTLASS_DIR"]
GIB_PER_JOB = 5  # one SM90 sparse GEMM takes up to 5 GB to compile


def build_jobs() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(memory / GIB_PER_JOB)))


def package_dir(module: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        sys.exit(
            f"amber_ext: the package '{module}' is not installed; it is needed to build. Install torch, "
            "pybind11, cmake and ninja first, then run pip with --no-build-isolation (see README.md)."
        )
    return Path(spec.origin).parent


def torch_version(torch_dir: Path) -> str:
    scope: dict[str, object] = {}
    exec((torch_dir / "version.py").read_text(), scope)
    return str(scope["__version__"])


class CMakeBuild(build_ext):
    def run(self) -> None:
        # pip need not have this environment's tools in PATH, and another cmake would build all anew.
        tools = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        torch_dir = package_dir("torch")
        build_dir = ROOT / "build" / "package"
        lib_dir = (Path(self.build_lib) if not self.inplace else ROOT).resolve()
        subprocess.run(
            [
                "cmake", "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja",
                "-DCMAKE_BUILD_TYPE=Release",
                "-DAMBER_BUILD_OPS=ON",
                "-DAMBER_BUILD_INTROSPECT=ON",
                "-DAMBER_BUILD_TESTS=OFF",
                *(f"-D{name}={os.environ.get(name, '')}" for name in SETTINGS),
                f"-DAMBER_TORCH_DIR={torch_dir}",
                f"-DAMBER_TORCH_VERSION={torch_version(torch_dir)}",
                f"-Dpybind11_DIR={package_dir('pybind11') / 'share' / 'cmake' / 'pybind11'}",
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-DCMAKE_INSTALL_PREFIX={lib_dir}",
            ],
            check=True,
            env=tools,
        )  # fmt: skip
        subprocess.run(
            ["cmake", "--build", str(build_dir), "--target", "install", "--parallel", str(build_jobs())],
            check=True,
            env=tools,
        )


# The one Extension makes setuptools treat the wheel as platform-specific; CMake builds it.
setup(
    ext_modules=[Extension("amber_ext._introspect", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
