# SPDX-License-Identifier: Apache-2.0
"""The rules of the code base that a parser can check."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vllm_mindspore"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROJECT_FOLDERS = (
    *("vllm_mindspore", "ops", "tests", "docs", "benchmarks", "examples", "requirements", ".ci"),
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_INIT_LINES = 40

# Import arrows: a part may import those before it, never those after it. Modules of one part may
# import each other. Parts that are not listed (envs, the front end) may be imported by all.
LAYERS = (
    "device",
    "quantization",
    "model_executor.model_loader",
    "model_executor.layers",
    "model_executor.models",
    "model_executor.backends",
    "worker",
    "inspection",
    "evaluation",
    "quantization.ptq",
    "conversion",
    "cli",
)
# Front end: never imports MindSpore, so neither these modules nor what they import may.
FRONT_END = (
    *("__init__", "plugin", "platform", "envs", "patches", "process_start", "process_end"),
    *("config_checks", "request_checks"),
    "checkpoint_checks",
    "unused_options",
    *("quantization.sparse_description", "quantization.sparse_codec"),
    "model_executor.model_loader.rank_files",
    *("registered_model", "cli", "quantization.description", "quantization.vllm_names"),
    *("quantization.kv_cache", "quantization.sparse_support"),
    *("device.soc", "device.sparse_weights"),
    *("quantization.ptq.policy", "quantization.ptq.job", "quantization.ptq.calibration_data"),
    *("quantization.ptq.float_checkpoint", "quantization.ptq.output_folder"),
    "quantization.ptq.evaluation",
    *("model_executor.models.registry", "model_executor.model_loader.quantization_files"),
    *("model_executor.models.config", "model_executor.models.layout"),
    *("inspection", "quantization.compressed_tensors", "model_executor.layers.attention_config"),
    "model_executor.layers.rotary_embedding",
    *("model_executor.model_loader.preflight", "model_executor.model_loader.checkpoint_files"),
    *("model_executor.model_loader.safetensors_header", "model_executor.model_loader.strict_json"),
)
# By which the models are named to vLLM and configurations checked; free of MindSpore, so the front
# end may read it.
SHARED_DATA = ("model_executor.models.registry", "model_executor.models.config")


def module_name(source: Path) -> str:
    parts = source.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def tree_of(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


def imports_of(source: Path) -> Iterator[str]:
    """Every imported module, those inside functions too; `from a import b` also as a.b."""
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> int | None:
    found = [i for i, layer in enumerate(LAYERS) if name == layer or name.startswith(layer + ".")]
    return found[-1] if found else None


def imports_package(source: Path, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imports_of(source))


def imports_at_run_time(source: Path, package: str) -> bool:
    """Like imports_package, but not counting `if TYPE_CHECKING:`."""
    tree = tree_of(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return any(name.split(".")[0] == package for name in names)


# Assignments into another package that no plain `module.name = ...` shows, by module. The platform
# that vLLM resolved before we were imported becomes ours in place.
INDIRECT_ASSIGNMENTS = {
    "patches": ["setattr(getattr(holder, path) if path else holder, attribute, self.replacement)"],
    "plugin": ["unspecified.__class__", "vars(module)['PIN_MEMORY']"],
}


def indirect_assignments(source: Path) -> Iterator[str]:
    """`x.__class__ = ...`, `vars(x)[...] = ...`, `x.__dict__[...] = ...` and `setattr(...)`."""
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            yield ast.unparse(node)
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            target = ast.unparse(node)
            if target.endswith(".__class__") or (
                (isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".__dict__"))
                or target.startswith(("vars(", "globals("))
            ):
                yield target


each_source = pytest.mark.parametrize("source", SOURCES, ids=module_name)


@each_source
def test_imports_run_one_way(source: Path) -> None:
    own = layer_of(module_name(source))
    if own is None:
        return
    for imported in imports_of(source):
        name = imported.removeprefix("vllm_mindspore.")
        if name == imported or name.startswith(SHARED_DATA):
            continue
        layer = layer_of(name)
        assert layer is None or layer <= own, f"{module_name(source)} imports {imported}"


@each_source
def test_front_end_does_not_import_mindspore(source: Path) -> None:
    if module_name(source).startswith(FRONT_END):
        assert not imports_package(source, "mindspore")


@each_source
def test_only_plugin_registers(source: Path) -> None:
    if module_name(source) == "plugin":
        return
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            registering = [a.name for a in node.names if a.name.startswith("register_")]
            assert not registering, f"only plugin.py calls {registering}"
            assert "ModelRegistry" not in [alias.name for alias in node.names]


@each_source
def test_only_envs_reads_the_environment(source: Path) -> None:
    if module_name(source) == "envs":
        return
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            reads = node.value.id == "os" and node.attr in ("environ", "getenv", "putenv")
            assert not reads, f"line {node.lineno}"


@each_source
def test_only_patches_assigns_to_other_packages(source: Path) -> None:
    """No `other.name = ...` where `other` is an imported module of another package."""
    if module_name(source) == "patches":
        return
    foreign = set()
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Import):
            names = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            foreign |= names - sys.stdlib_module_names
    for node in ast.walk(tree_of(source)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            while isinstance(target, ast.Attribute):
                target = target.value
                assert not (isinstance(target, ast.Name) and target.id in foreign), (
                    f"line {node.lineno}"
                )


@each_source
def test_indirect_assignments_are_the_named_exceptions(source: Path) -> None:
    named = INDIRECT_ASSIGNMENTS.get(module_name(source), [])
    assert sorted(indirect_assignments(source)) == named


@each_source
def test_only_bridge_imports_torch_and_mindspore(source: Path) -> None:
    if module_name(source) != "bridge":
        both = all(imports_at_run_time(source, package) for package in ("torch", "mindspore"))
        assert not both, "torch and MindSpore meet in bridge.py only"


@each_source
def test_sizes(source: Path) -> None:
    lines = source.read_text(encoding="utf-8").count("\n")
    assert lines <= (MAX_INIT_LINES if source.name == "__init__.py" else MAX_FILE_LINES)
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@each_source
def test_module_says_what_it_owns(source: Path) -> None:
    assert ast.get_docstring(tree_of(source)), "a module docstring is missing"


def project_files(*endings: str) -> Iterator[Path]:
    """Files of the project with one of the endings, nothing that was built or downloaded."""
    for top in ROOT.iterdir():
        inside = top.rglob("*") if top.name in PROJECT_FOLDERS else [top]
        yield from (file for file in inside if file.is_file() and file.name.endswith(endings))


def test_every_source_file_has_its_licence_line() -> None:
    endings = (".py", ".cpp", ".h", ".inl", "CMakeLists.txt", ".cmake", "Makefile")
    without = [
        str(source.relative_to(ROOT))
        for source in project_files(*endings)
        if "SPDX-License-Identifier: Apache-2.0" not in source.read_text(encoding="utf-8")[:200]
    ]
    assert not without


def test_no_path_of_a_machine_is_written_down() -> None:
    machine_path = re.compile(r"(?<![\w.])/(?:root|home/\w+|work|mnt|Users)/\w")
    endings = (".py", ".cpp", ".h", ".inl", ".md", ".toml", ".txt", ".json", ".cmake", "Makefile")
    found = [
        f"{source.relative_to(ROOT)}:{number}"
        for source in project_files(*endings)
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
        if machine_path.search(line)
    ]
    assert not found


def test_folders_of_tests_are_folders_of_the_package() -> None:
    """tests/<part>/ exists only where vllm_mindspore/<part>/ does (end-to-end tests excepted)."""
    stray = []
    for test in (ROOT / "tests").rglob("test_*.py"):
        folder = test.relative_to(ROOT / "tests").parent
        if folder == Path(".") or folder.parts[0] in (
            "e2e",
            "fixtures",
            "examples",
            "hostile",
            "server",
        ):
            continue
        if not (PACKAGE / folder).is_dir():
            stray.append(str(test.relative_to(ROOT)))
    assert not stray


# Modules without a test file at their mirrored path, with what tests them instead.
TESTED_ELSEWHERE = {
    "__init__": "test_plugin.py",  # activate()
    "cli.quantize_arguments": "cli/test_quantize.py",
    "cli.eval": "evaluation/test_eval_command.py",
    "conversion.ranks": "conversion/test_convert.py",
    "conversion.rejoined": "conversion/test_convert.py",
    "conversion.whole": "conversion/test_convert.py",
    "device.scheduler": "device/test_cluster.py",
    "device.smoke": "cli/test_doctor.py",  # the program that `doctor` runs
    "evaluation.errors": "evaluation/test_eval_command.py",  # one exception
    "model_executor.backends.base": "model_executor/backends/test_native.py",  # protocols
    "model_executor.layers.attention_config": "model_executor/layers/test_attention.py",
    "worker.pooling": "e2e/test_pooling.py",  # vLLM's poolers on real hidden states
    "model_executor.layers.build": "model_executor/layers/test_linear.py",  # one dataclass
    "quantization.ptq": "quantization/ptq/test_golden_stick.py",  # names
    "quantization.ptq.batches": "quantization/ptq/test_calibration_layer.py",
    "quantization.ptq.job": "quantization/ptq/test_engine.py",
    "quantization.ptq.layer_arrays": "quantization/ptq/test_calibration_layer.py",
    "quantization.ptq.network": "quantization/ptq/test_golden_stick.py",
    "quantization.ptq.quantized_group": "quantization/ptq/test_layer_quantizer.py",
    "quantization.ptq.report": "quantization/ptq/test_output_folder.py",  # data
    "quantization.ptq.stored": "quantization/ptq/test_engine.py",
    "quantization.schemes.tensors": "quantization/schemes/test_w8a8.py",
    "quantization.schemes.w8a8sc": "quantization/test_sparse_plan.py",
    # They stand between a hostile file and the process.
    "model_executor.model_loader.checkpoint_files": "hostile/test_folders.py",
    "model_executor.model_loader.mapped_file": "hostile/test_safetensors_files.py",
    "model_executor.model_loader.rank_source": "conversion/test_load_check.py",
    "model_executor.model_loader.rank_files": "hostile/test_compressed_folders.py",
    "model_executor.model_loader.preflight": "hostile/test_model_folders.py",
    "model_executor.model_loader.safetensors_header": "hostile/test_safetensors_files.py",
    "model_executor.model_loader.strict_json": "hostile/test_safetensors_files.py",
}
# A model is data and layers: what it computes is compared with transformers, end to end.
MODELS_TEST = "e2e/test_correctness.py"
NOT_MODELS = ("registry", "config", "layout")


def mirrored_test(module: str) -> str:
    """Where a module's tests are, below tests/."""
    folder, _, name = module.rpartition(".")
    if folder == "model_executor.models" and name not in NOT_MODELS:
        return MODELS_TEST
    mirrored = Path(*folder.split("."), f"test_{name}.py") if folder else Path(f"test_{name}.py")
    return TESTED_ELSEWHERE.get(module, str(mirrored))


@each_source
def test_every_module_has_its_tests(source: Path) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if any(isinstance(node, definitions) for node in ast.walk(tree_of(source))):
        assert (ROOT / "tests" / mirrored_test(module_name(source))).is_file()


def test_modules_tested_elsewhere_exist_and_have_no_file_of_their_own() -> None:
    assert set(TESTED_ELSEWHERE) <= {module_name(source) for source in SOURCES}
    for module in TESTED_ELSEWHERE:
        folder, _, name = module.rpartition(".")
        mirrored = ROOT / "tests" / Path(*folder.split(".")) / f"test_{name}.py"
        assert not mirrored.exists(), f"{module} does not belong into TESTED_ELSEWHERE"
