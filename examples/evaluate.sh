#!/usr/bin/env bash
# What pruning costs your model, and which configuration to take: plan on one text, compare on another, save the plan.
#   examples/evaluate.sh MODEL CALIBRATION_TEXT TEXT OUT_FOLDER
# For tasks beside perplexity: amber-ext eval ... --tasks arc_easy,piqa, or your own lm-eval task with --include-path.
set -euo pipefail
model="$1" calibration="$2" text="$3" out="$4"

mkdir -p "$out"
amber-ext plan "$model" --cost 0.8 --text "$calibration" --out "$out/plan.json" --plot "$out/frontier.png"
# Stopped, this command goes on where it was; others with the same --out add lines to the same table.
amber-ext eval "$model" --out "$out/eval" --text "$text" --methods robust_norm --patterns 2:4,10:16w,12:16w \
  --config "$out/plan.json"
amber-ext prune "$model" --config "$out/plan.json" --out "$out/pruned" --measure "$text"
