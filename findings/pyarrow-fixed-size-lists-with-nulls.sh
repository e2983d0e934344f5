#!/usr/bin/env bash
# pyarrow 25.0.0: a Parquet file of embeddings in which one row is missing is written, but cannot be read.
#
# Lists of a fixed size suit embeddings, with null where an image could not be read. pyarrow 25.0.0 writes such a column
# without a word and cannot read it back; from 26.0.0 on both work, but who gets the file may have an older version.
# Lists of variable size with the same content are read by both. Output:
#
#     pyarrow 25.0.0, fixed size: ArrowInvalid on reading
#     pyarrow 25.0.0, variable size: [[1.0, 2.0], None, [3.0, 4.0]]
#     pyarrow 26.0.0, fixed size: [[1.0, 2.0], None, [3.0, 4.0]]
#     pyarrow 26.0.0, variable size: [[1.0, 2.0], None, [3.0, 4.0]]
set -euo pipefail
program=$(cat <<'PYTHON'
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [[1.0, 2.0], None, [3.0, 4.0]]
EXPECTED = {"25.0.0": "ArrowInvalid on reading", "26.0.0": str(ROWS)}


def there_and_back(kind):
    file, step = pa.BufferOutputStream(), "writing"
    try:
        pq.write_table(pa.table({"embedding": pa.array(ROWS, kind)}), file)
        step = "reading"
        table = pq.read_table(file.getvalue(), use_threads=False)
        return str(table["embedding"].to_pylist())
    except pa.ArrowInvalid as error:
        return f"{type(error).__name__} on {step}"


fixed, variable = there_and_back(pa.list_(pa.float32(), 2)), there_and_back(pa.list_(pa.float32()))
print(f"pyarrow {pa.__version__}, fixed size: {fixed}")
print(f"pyarrow {pa.__version__}, variable size: {variable}")
assert fixed == EXPECTED[pa.__version__] and variable == str(ROWS)
PYTHON
)
for version in 25.0.0 26.0.0; do
    "$(dirname "$0")/check" "pyarrow==$version" <<<"$program"
done
