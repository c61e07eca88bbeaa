#!/usr/bin/env bash
# rhubarb-lip-sync-wasm (npm) gives no mouth shape at all for two seconds of silence, not even X, and for
# speech-like sound its shapes leave holes in time; both would freeze a mouth that holds the last shape.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-fund --no-audit --ignore-scripts rhubarb-lip-sync-wasm@0.1.8
cat >run.mjs <<'JS'
import { Rhubarb } from "rhubarb-lip-sync-wasm";

const RATE = 16000;
const FORMANTS = [[700, 1200], [300, 2200], [400, 800], [550, 1700]];

// Four vowels a second: pulses at 120 Hz through two resonances, with pauses.
function vowels(seconds) {
  const samples = Buffer.alloc(seconds * RATE * 2);
  const low = [0, 0];
  const high = [0, 0];
  const resonate = (input, hertz, state) => {
    const output = input + 1.94 * Math.cos((2 * Math.PI * hertz) / RATE) * state[0] - 0.9409 * state[1];
    state[1] = state[0];
    state[0] = output;
    return output;
  };
  for (let i = 0; i < seconds * RATE; i++) {
    const time = (i / RATE) * 4;
    const pulse = i % 133 < 3 && time % 1 < 0.85 ? 1 : 0;
    const [first, second] = FORMANTS[Math.floor(time) % 4];
    const value = resonate(resonate(pulse, first, low), second, high);
    samples.writeInt16LE(Math.max(-32000, Math.min(32000, Math.round(value * 150))), i * 2);
  }
  return samples;
}

const print = console.log;
console.log = () => {}; // the package prints its progress
const silence = (await Rhubarb.getLipSync(Buffer.alloc(2 * RATE * 2), {})).mouthCues;
const cues = (await Rhubarb.getLipSync(vowels(3), {})).mouthCues;
const holes = cues.slice(1).filter((cue, i) => cue.start > cues[i].end + 0.001).length;
print("rhubarb-lip-sync-wasm 0.1.8: cues of silence", silence.length, "; of vowels", cues.length, "with", holes, "holes:");
print(cues.map((cue) => `${cue.start}-${cue.end} ${cue.value}`).join(", "));
if (silence.length !== 0 || holes === 0) throw new Error("the behavior has changed");
JS
node run.mjs
