#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A manual page of Markdown, by lowdown(1), as roff with the macros of man(7).

    build.py PAGE.md OUT VERSION

PAGE is NAME.SECTION.md, its first level of headings the sections.  What lowdown leaves to wish for
is set right: dashes in what one types must come out as such and not as hyphens, and terms of a
definition list are hanging paragraphs.
"""

import os
import re
import subprocess
import sys

# Of a definition: the term on a line of its own, then a paragraph pulled up to it.
TERM = re.compile(r'^\.(?:LP|PP)\n(.+)\n\.if n \\\n\.sp -1v\n\.if t \\\n\.sp -0\.25v\n\.IP "" 5n$',
                  re.M)
# Text in another font, and the lines of an example.
TYPED = re.compile(r"\\f[BCI].*?\\fR|^\.EX$.*?^\.EE$", re.M | re.S)


def roff(text):
    text = TERM.sub(r".TP\n\1", text)
    text = re.sub(r"^\.(SH|SS)\n(.+)$", r'.\1 "\2"', text, flags=re.M)
    text = TYPED.sub(lambda m: re.sub(r"(?<!\\)-", r"\\-", m[0]), text)
    # The line that whatis(1) reads.
    text = re.sub(r'(\.SH "NAME"\n\.LP\n\S+) - ', r"\1 \\- ", text, count=1)
    return text.replace(".EX\n", ".RS 4\n.EX\n").replace(".EE\n", ".EE\n.RE\n")


def main():
    page, out, version = sys.argv[1:]
    name, section = os.path.basename(page).removesuffix(".md").rsplit(".", 1)
    run = subprocess.run(
        ["lowdown", "-s", "-Tman", "--out-no-smarty", "--parse-no-math", "--parse-no-autolink",
         "-m", f"title: {name.upper() if section == '1' else name}", "-m", f"section: {section}",
         "-m", "date: ", "-m", f"source: asof {version}", "-m", "volume: asof", page],
        check=True, stdout=subprocess.PIPE)
    with open(out, "w", encoding="utf-8") as f:
        f.write(roff(run.stdout.decode()))


if __name__ == "__main__":
    main()
