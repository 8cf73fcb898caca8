"""Print three records of a JSON-lines file, short. Usage: show.py FILE"""

import json
import sys
from pathlib import Path

rows = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")[:-1]
for line in rows[:: max(1, len(rows) // 3)][:3]:
    record = json.loads(line)
    print(
        f"  {record['module']}.{record['name']} ({record['kind']}): {record['field']} [{record['_status']}]"
    )
