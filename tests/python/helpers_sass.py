"""What the machine code of the built CUDA kernels does with memory, read with NVIDIA's disassembler.

``python tests/python/helpers_sass.py OBJECT...`` prints it for object files that nvcc made.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

# Where the build leaves the kernels that are no GEMMs (amber_add_cuda in csrc/amber/cuda/cuda.cmake).
TARGET = Path(__file__).resolve().parents[2] / "build" / "package" / "CMakeFiles" / "amber_cuda_kernels.dir"
OBJECTS = TARGET / "csrc" / "amber" / "cuda"
WHEELS = {"cuobjdump": "nvidia-cuda-cuobjdump", "nvdisasm": "nvidia-cuda-nvdisasm"}
BITS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}  # and 32 without a flag

FUNCTION = re.compile(r"\.text\.(\S+):")
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z]\w*(?:\.\w+)*)")
LABEL = re.compile(r"(\.L_\w+):")
TARGET = re.compile(r"BRA\b.*`\((\.L_\w+)\)")
# What the ALU pipe does on Hopper, at half the rate of FMA's: comparisons, choices, logic, shifts, and sums of integers.
ALU = set("FMNMX FSEL FSETP IADD3 ISETP LEA LOP3 P2R PLOP3 PRMT R2P SEL SHF VIADD VIMNMX IMNMX".split())


@dataclass
class Kernel:
    """One kernel for one architecture. Instructions are called what the disassembler calls them: ``STG.E.128``."""

    architecture: str
    name: str
    arguments: tuple[str, ...]  # of its template: "Float16", "true", "2"
    registers: int
    code: list[str] = field(default_factory=list)  # in order, without the padding
    loops: list[range] = field(
        default_factory=list
    )  # places in the code, from a branch's target to the branch
    returns: int = 0  # the place after the last EXIT; behind it are subroutines

    @property
    def instructions(self) -> Counter[str]:
        return Counter(self.code)

    def stores_in(self, places: range) -> bool:
        return any(self.code[at].startswith("STG") for at in places)

    def main_path(self) -> list[str]:
        """What one turn of the main loop takes, a loop inside it counted twice (rows t and t + 8); where no loop
        stores, the kernel up to its last EXIT."""
        storing = [loop for loop in self.loops if self.stores_in(loop)]
        whole = [a for a in storing if not any(b != a and a.start in b and a[-1] in b for b in storing)]
        if not whole:
            return self.code[: self.returns]
        # The loop over full tiles; the one that asks for every row whether it is there is longer.
        main = min(whole, key=len)
        inner = [loop for loop in self.loops if loop != main and loop.start in main and loop[-1] in main]
        return [self.code[at] for loop in (main, *inner) for at in loop]

    def widths(self, operation: str, flag: str = "") -> Counter[int]:
        """How many instructions have each width, in bits of one thread; with ``flag``, of those that carry it."""
        found: Counter[int] = Counter()
        for instruction, count in self.instructions.items():
            name, *flags = instruction.split(".")
            if name == operation and (not flag or flag in flags):
                found[next((BITS[f] for f in flags if f in BITS), 32)] += count
        return found

    def loads(self, flag: str = "") -> Counter[int]:
        """From global memory. The flag EF: of what is read once; CONSTANT: through the read-only cache."""
        return self.widths("LDG", flag)

    def stores(self) -> Counter[int]:
        """To global memory."""
        return self.widths("STG")

    def not_global(self) -> set[str]:
        """Accesses to local memory (spills, arrays with computed indices), and those whose space is unknown."""
        return {i for i in self.instructions if i.split(".")[0] in ("LDL", "STL", "LD", "ST")}

    def __str__(self) -> str:
        return f"{self.name}<{', '.join(self.arguments)}> for {self.architecture}"


def program(name: str) -> str | None:
    """The program from NVIDIA's wheel; the CUDA toolkit need not have it."""
    try:
        files = importlib.metadata.files(WHEELS[name]) or []
    except importlib.metadata.PackageNotFoundError:
        return shutil.which(name)
    return next((str(file.locate()) for file in files if file.name == name), None)


def obstacle() -> str | None:
    """Why nothing can be read here, or None."""
    if not list(OBJECTS.rglob("*.cu.o")):
        return f"no CUDA kernels were built: no object files in {OBJECTS}"
    absent = [wheel for name, wheel in WHEELS.items() if not program(name)]
    absent += [] if shutil.which("c++filt") else ["c++filt (binutils)"]
    return f"not installed: {', '.join(absent)}" if absent else None


def read(command: list[str], **options) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def demangled(names: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Each function's name and template arguments, without namespaces, casts and the arguments' own arguments."""
    plain = read(["c++filt"], input="\n".join(names)).splitlines()
    found = []
    for text in plain:
        text = re.sub(r"\(anonymous namespace\)::|\([\w: ]+\)(?=\d)|\b\w+::", "", text)
        text = re.sub(r"(?<=[ ,]\w)(\w+)<\w+> ?(?=[,>])", r"\1", text)  # an argument's own arguments
        name, arguments = re.match(r"(?:\w+ )?(\w+)(?:<([^>]*)>)?", text).groups()
        found.append((name, tuple(re.sub(r"^(\d+)u?l*$", r"\1", a) for a in (arguments or "").split(", "))))
    return found


def kernels(path: Path) -> list[Kernel]:
    """The kernels of an object file, for all its architectures."""
    with tempfile.TemporaryDirectory() as folder:
        read([program("cuobjdump"), "-xelf", "all", str(path.resolve())], cwd=folder)
        with ThreadPoolExecutor() as pool:
            return [k for found in pool.map(disassembled, sorted(Path(folder).iterdir())) for k in found]


def disassembled(cubin: Path) -> list[Kernel]:
    usage = read([program("cuobjdump"), "-res-usage", str(cubin)])
    registers = dict(re.findall(r"Function (\S+):\s+REG:(\d+)", usage))
    named = dict(zip(registers, demangled(list(registers)), strict=True))
    lines = read([program("nvdisasm"), "-c", str(cubin)]).splitlines()
    architecture = next(line.split()[1] for line in lines if line.startswith("\t.target"))
    found: list[Kernel] = []
    places: dict[str, int] = {}
    for line in lines:
        if match := INSTRUCTION.match(line):
            condition, name = match.groups()
            if name == "NOP":
                continue
            code = found[-1].code
            code.append(name)
            if name == "EXIT" and not condition:
                found[-1].returns = len(code)
            # A loop of one instruction is the trap behind the code.
            target = TARGET.search(line)
            if target and places.get(target[1], len(code)) < len(code) - 1:
                found[-1].loops.append(range(places[target[1]], len(code)))
        elif match := LABEL.match(line):
            places[match[1]] = len(found[-1].code) if found else 0
        elif match := FUNCTION.match(line):
            found.append(Kernel(architecture, *named[match[1]], int(registers[match[1]])))
    return found


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        for kernel in kernels(path):
            print(kernel)
            path = kernel.main_path()
            alu = sum(name.split(".")[0] in ALU for name in path)
            print(f"  instructions {len(kernel.code)}, registers {kernel.registers}")
            print(f"  main path {len(path)}, of them {alu} on the ALU pipe")
            for what, widths in (("loads", kernel.loads()), ("stores", kernel.stores())):
                print(f"  {what}", ", ".join(f"{n} of {bits} bits" for bits, n in sorted(widths.items())))
            if kernel.not_global():
                print("  not global:", ", ".join(sorted(kernel.not_global())))


if __name__ == "__main__":
    main()
