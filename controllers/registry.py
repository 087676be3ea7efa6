"""The controllers, by name. One folder and one line each; imported only when started."""

CONTROLLERS: dict[str, str] = {
    "budget": "controllers.budget.run",
    "forecast": "controllers.forecast.command",
    "recovery": "controllers.recovery.run",
    "scale": "controllers.scale.run",
}

# Commands that answer and end. Each module has `main(argv: list[str]) -> int`.
COMMANDS: dict[str, str] = {
    "bottleneck": "controllers.bottleneck.run",
    "check": "controllers.check",
    "rules": "controllers.rules",
    "schema": "controllers.schema",
    "why": "controllers.scale.why",
}
