"""What a failed test's report gets: the journal and the command logs of its sandboxes."""

from sandyard.testing.client import BenchError, Yard, journal_line

MAX_RECORDS = 100
MAX_COMMANDS = 30


def sections(yard: Yard) -> list[tuple[str, str]]:
    """Title and text of each; a Sandyard that does not answer is said, and hides no failure of the test."""
    try:
        records, logs = yard.journal(), yard.command_logs()
    except (BenchError, OSError) as error:
        return [("Sandyard", f"no journal: {error}")]
    made = []
    if records:
        left = f"({len(records) - MAX_RECORDS} before)\n" if len(records) > MAX_RECORDS else ""
        made.append(("Sandyard journal", left + "\n".join(journal_line(one) for one in records[-MAX_RECORDS:])))
    if logs:
        text = "\n".join(f"{title}\n{_indented(lines)}" for title, lines in logs[-MAX_COMMANDS:])
        made.append(("Sandyard commands", text))
    return made


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (no output)"
