"""Law 1 in every weight format: the same bits whatever the batch, chunk, page size, threads and kernel table.

    python bench/laws.py [--formats Q4_0,int4:group=128] [--kv f16,f32] [-n 40]

A Llama of two layers (512 columns, heads of 64, vocabulary of 2,048) is made in each format, every matrix in it, and
`edgewise check invariance` and `edgewise check tables` run on it. Exit 1 when any bit differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FORMATS = [
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
    *(f"{name}:group={g}" for name in ("int1", "ternary", "int2", "int3", "int4", "int8") for g in (32, 64, 128)),
]  # fmt: skip
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 2048,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def edgewise(*words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "edgewise.serve.cli", *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--kv", default="f16")
    parser.add_argument("-n", "--tokens", type=int, default=40)
    options = parser.parse_args()
    failed = False
    print(f"{'format':18} {'KV':4} {'cases':>5}  {'logits':16}  invariance  tables, largest difference")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(CONFIG))
        plain = str(Path(folder) / "plain")
        code, _, error = edgewise("fabricate", "--config", str(config), "-o", plain, "-q", "f32")
        if code:
            sys.exit(error)
        for name in options.formats.split(","):
            own = ":" in name or name.startswith(("int", "ternary"))
            model = str(Path(folder) / ("model" if own else "model.gguf"))
            code, _, error = edgewise("convert", plain, "-o", model, "-q", name, "--pure", "--force")
            if code:
                print(f"{name:18} not made: {error.splitlines()[-1] if error else code}")
                failed = True
                continue
            code, said, error = edgewise("check", "tables", model, "-n", str(options.tokens), "--json")
            tables = json.loads(said)["tables"] if said else []
            words = "equal" if code == 0 else "DIFFERS" if tables else error
            apart = max((row["largest_difference"] for row in tables), default=float("nan"))
            failed |= code != 0
            for kv in options.kv.split(","):
                tokens = str(options.tokens)
                code, said, error = edgewise("check", "invariance", model, "-n", tokens, "-ctk", kv, "--json")
                failed |= code != 0
                report = json.loads(said) if said else {"cases": 0, "logits_hash": error, "equal": False}
                print(
                    f"{name:18} {kv:4} {report['cases']:5}  {report['logits_hash']:16}  "
                    f"{'equal' if report['equal'] else 'DIFFERS':10}  {words} ({len(tables)} tables), {apart:.3g}",
                    flush=True,
                )
    sys.exit(failed)


if __name__ == "__main__":
    main()
