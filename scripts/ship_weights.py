"""Put a weight file that was trained here into weights/, and into its manifest.

python scripts/ship_weights.py captioner-vgg16 trained/captioner.safetensors
--licence MIT --source "trained on Flickr8k" --command "stylecap train-captioner ..."
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from stylecap.files import file_sha256
from stylecap.weights import WeightFile, registry, write_manifest

FOLDER = Path(__file__).parent.parent / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="what programs ask for")
    parser.add_argument("file", type=Path)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--source", required=True, help="where the numbers come from")
    parser.add_argument("--command", required=True, help="what made the file")
    arguments = parser.parse_args()

    path = FOLDER / f"{arguments.name}.safetensors"
    shutil.copyfile(arguments.file, path)
    path.chmod(0o644)
    entry = WeightFile(
        name=arguments.name,
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        licence=arguments.licence,
        source=arguments.source,
        command=arguments.command,
    )
    known = {name: known for name, (known, _) in registry(FOLDER).items()}
    write_manifest(FOLDER, {**known, entry.name: entry})
    print(f"{path}  {entry.bytes:,} bytes  sha256 {entry.sha256}")


if __name__ == "__main__":
    main()
