"""Where processes run: the launchers' table. A new place is one file and one line here."""

LAUNCHERS: dict[str, str] = {
    "local": "engine.launchers.local:LocalLauncher",
}
