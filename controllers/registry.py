"""The controllers, by name. One folder and one line each; imported only when started."""

CONTROLLERS: dict[str, str] = {
    "budget": "controllers.budget.run",
    "forecast": "controllers.forecast.command",
    "recovery": "controllers.recovery.run",
    "scale": "controllers.scale.run",
}

# Commands that answer and end: a module with `main(argv: list[str]) -> int`, or MODULE:FUNCTION.
COMMANDS: dict[str, str] = {
    "bottleneck": "controllers.bottleneck.run",
    "check": "controllers.check",
    "floors": "controllers.floors",
    "init": "controllers.init.command",
    "overrides": "controllers.scale.steer:overrides",
    "pause": "controllers.scale.steer:pause",
    "promote": "controllers.promote.command",
    "resume": "controllers.scale.steer:resume",
    "replay": "controllers.replay.command",
    "rules": "controllers.rules",
    "schema": "controllers.schema",
    "surge": "controllers.scale.steer:surge",
    "why": "controllers.scale.why",
}
