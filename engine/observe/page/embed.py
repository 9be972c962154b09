# SPDX-License-Identifier: Apache-2.0
"""embed.py OUTPUT FILE...: the files as C arrays, page_NAME_EXT and their lengths."""

import os
import sys

with open(sys.argv[1], "w", encoding="ascii") as out:
    out.write("/* made by engine/observe/page/embed.py */\n")
    for path in sys.argv[2:]:
        with open(path, "rb") as f:
            data = f.read()
        name = "page_" + os.path.basename(path).replace(".", "_")
        out.write(f"static const unsigned char {name}[{len(data)}] = {{\n")
        for i in range(0, len(data), 20):
            out.write(",".join(map(str, data[i:i + 20])) + ",\n")
        out.write("};\n")
