"""Cost & budget: what is spent and set aside, how it will end, and what was refused."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board, choice
from grafana.panels import (
    BLUE,
    COUNT,
    GREEN,
    MONEY,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    bars,
    coloured,
    dashed,
    lines,
    number,
    query,
    rows,
    states,
    styled,
)

OF = '{budget=~"$budget"}'
RATE = "[$__rate_interval]"
LEVELS = {"0": ("normal", GREEN), "1": ("economy", YELLOW), "2": ("essential", ORANGE), "3": ("exhausted", RED)}


def dashboard() -> models.Dashboard:
    """uid tidewise-budget."""
    return board(
        "budget",
        "Cost & budget",
        "The month's money as the ledger has it, line by line in `tidewise budget statement`.",
        [
            ("This month", _month()),
            ("How it goes", _course()),
            ("On what", _spend()),
            ("Costs as exporters see them", _costs()),
            ("Permits and the ledger", _ledger()),
        ],
        variables=[
            choice("budget", "Budget", "As configured: usage is a part of total", "tidewise_budget_limit", "budget")
        ],
        span=("now-24h", "now"),
    )


def _money(name: str) -> str:
    return f"max by (budget, currency) (tidewise_budget_{name}{OF})"


def _month() -> list[Panel]:
    return [
        rows(
            "Budgets now",
            "Limit = left + posted + held + committed. Held: permitted and not settled yet. Committed: fixed costs and "
            "minimum replicas to the month's end. Month-end: at the recent rate, over the demand that is left.",
            [
                Column("Budget", label="budget"),
                Column("Currency", label="currency"),
                Column("Limit", MONEY, _money("limit")),
                Column("Posted", MONEY, _money("posted")),
                Column("Held", MONEY, _money("held")),
                Column("Committed", MONEY, _money("committed")),
                Column("Left", MONEY, _money("remaining")),
                Column("By now, on plan", MONEY, _money("pace")),
                Column("Spent", MONEY, _money("spent")),
                Column("Month-end", MONEY, _money("projected")),
                Column(
                    "Level",
                    expr=f"0 * {_money('limit')} + on (budget) group_left () budget:level:value",
                    words=LEVELS,
                ),
            ],
            key="budget",
            span=15,
            height=7,
        ),
        number(
            "Spent",
            "Posted and fixed costs over the limit, of the budget that is nearest to its own. n/a: a limit of zero.",
            RATIO,
            f"max(budget:spent:ratio{OF})",
            limits=((None, GREEN), (0.75, YELLOW), (0.9, ORANGE), (1, RED)),
            height=7,
        ),
        number(
            "Month-end",
            "Foreseen at the recent rate over the demand that is left, of the limit.",
            RATIO,
            f"max(budget:projected:ratio{OF})",
            limits=((None, GREEN), (1, ORANGE), (1.1, RED)),
            height=7,
        ),
        number(
            "Denied within the hour",
            "Permits that were refused.",
            COUNT,
            'sum(increase(tidewise_budget_permits_total{result="denied"}[1h]))',
            limits=((None, GREEN), (1, YELLOW)),
            height=7,
        ),
    ]


def _course() -> list[Panel]:
    money = lines(
        "Spent, against the plan",
        "Spent, what would be spent by now on a month that ends at its limit, and the month-end that is foreseen. In "
        "the budget's currency.",
        MONEY,
        query(_money("spent"), "{{budget}} spent"),
        query(_money("pace"), "{{budget}} on plan"),
        query(_money("projected"), "{{budget}} month-end"),
        query(_money("limit"), "{{budget}} limit"),
        height=9,
    )
    money.override_by_regexp("/ limit$/", dashed(RED))
    money.override_by_regexp("/ on plan$/", styled(custom__lineStyle={"fill": "dot", "dash": [2, 6]}))
    return [
        money,
        lines(
            "Spent, of the limit",
            "Dashed: people are told at 50, 75 and 90 %; at 100 % everything is denied. Passing them degrades nothing.",
            RATIO,
            query(f"budget:spent:ratio{OF}", "{{budget}} spent"),
            query(f"budget:projected:ratio{OF}", "{{budget}} month-end"),
            limits=((0.5, BLUE), (0.75, YELLOW), (0.9, ORANGE), (1, RED)),
            height=9,
        ),
        states(
            "Level",
            "How careful to be. Economy: what can wait, waits. Essential: only critical work. Exhausted: nothing.",
            query(f"budget:level:value{OF}", "{{budget}}"),
            words=LEVELS,
            span=8,
        ),
        lines(
            "Burn rate",
            "Recent spend × time left ÷ budget left; above 1 the budget ends before the month. Dashed: people are "
            "called, if two windows agree.",
            "suffix: ×",
            query(
                f"max by (budget, window_seconds) (tidewise_budget_burn_rate{OF})", "{{budget}} {{window_seconds}} s"
            ),
            limits=((1, BLUE), (6, ORANGE), (14.4, RED)),
            span=8,
        ),
        lines(
            "Cost of an hour",
            "Posted within the last hour, in the budget's currency.",
            MONEY,
            query(f"clamp_min(3600 * deriv(tidewise_budget_posted{OF}[1h]), 0)", "{{budget}}"),
            span=8,
        ),
    ]


def _spend() -> list[Panel]:
    who = "{{provider}} {{model}} {{workload}}"
    return [
        bars(
            "Dearest this month",
            "Posted by provider, model and workload, in the budget's currency.",
            MONEY,
            "topk(12, max by (provider, model, workload) (tidewise_budget_spend))",
            who,
            limits=((None, BLUE),),
        ),
        lines(
            "Where the money goes",
            "Posted this month by workload, in the budget's currency. A line without a name: spend of no workload.",
            MONEY,
            query("sum by (workload) (max by (provider, model, workload) (tidewise_budget_spend))", "{{workload}}"),
            stacked=True,
        ),
    ]


def _costs() -> list[Panel]:
    """Sources overlap, so nothing here adds them up."""
    by_workflow = 'topk(12, sum by (source, currency, workflow) (cost_spend{workflow!=""}))'
    by_model = "topk(12, sum by (source, basis, currency, provider, service, model) (cost_spend))"
    return [
        rows(
            "Sources",
            "Month to date of each source. The same money may be in two (ledger and bill): they are not added up. "
            "Prices: how old the newest one is. Asking: what asking AWS for its bill has cost.",
            [
                Column("Source", label="source"),
                Column("Basis", label="basis"),
                Column("Currency", label="currency"),
                Column("Spent", MONEY, "cost:spent:sum"),
                Column("Month began, ago", SECONDS, _beside_spend("time() - ", "cost_period_start_timestamp_seconds")),
                Column("Prices, age", SECONDS, _beside_spend("time() - ", "cost_price_table_timestamp_seconds")),
                Column("Bill, age", SECONDS, _beside_spend("time() - ", "cost_asked_timestamp_seconds")),
                Column("Asking", MONEY, _beside_spend("", "cost_asking_spend")),
            ],
            key="source",
            height=6,
        ),
        bars(
            "By provider and model",
            "Month to date, of each source in its currency.",
            MONEY,
            by_model,
            "{{source}} {{provider}} {{service}} {{model}} {{currency}}",
            limits=((None, BLUE),),
            span=8,
        ),
        bars(
            "By workflow",
            "Month to date, of each source in its currency.",
            MONEY,
            by_workflow,
            "{{source}} {{workflow}} {{currency}}",
            limits=((None, BLUE),),
            span=8,
        ),
        lines(
            "A workload's hour",
            "Money an hour, over the last one: what the ledger or usage events say, and declared instances.",
            MONEY,
            query("3600 * workload:cost:rate1h", "{{workload}} {{currency}}"),
            span=8,
        ),
        lines(
            "Units used",
            "Tokens, seconds, pages and what else is reported, since the month began.",
            COUNT,
            query("sum by (source, unit) (cost_units)", "{{source}} {{unit}}"),
            span=8,
        ),
        lines(
            "Instances",
            "The hourly price of those that run.",
            MONEY,
            query(
                "sum by (name, workload, currency) (cost_instance_price_per_hour)", "{{name}} {{workload}} {{currency}}"
            ),
            stacked=True,
            steps=True,
            span=8,
        ),
        lines(
            "Usage events",
            "Lines read, a minute. Refused: no event, or one without a time. Repeated: counted before.",
            "suffix: /min",
            query(f"60 * sum by (result) (rate(cost_usage_lines_total{RATE}))", "{{result}}"),
            span=8,
        ),
    ]


def _beside_spend(before: str, name: str) -> str:
    """A series by source, with the labels of what was spent, so that it stands in the same row of a table."""
    return f"{before}max by (source) ({name}) * on (source) group_right () (cost:spent:sum * 0 + 1)"


def _ledger() -> list[Panel]:
    return [
        lines(
            "Permits",
            "A minute, by answer and reason.",
            "suffix: /min",
            query(
                f"60 * sum by (result, reason) (rate(tidewise_budget_permits_total{RATE})) > 0 "
                f'or 60 * sum by (result, reason) (rate(tidewise_budget_permits_total{{result="allowed"}}{RATE}))',
                "{{result}}: {{reason}}",
            ),
            span=6,
        ),
        lines(
            "Set aside",
            "Held for what is under way, and how many holds that are.",
            MONEY,
            query(_money("held"), "{{budget}} held"),
            query("max(tidewise_budget_open_holds)", "open holds"),
            span=6,
        ).override_by_name("open holds", styled(color=coloured(ORANGE), unit=COUNT, custom__axisPlacement="right")),
        lines(
            "Rows of the ledger",
            "A minute, by state. An expired hold was settled by nobody and counts as spent in full.",
            "suffix: /min",
            query(f"60 * sum by (state) (rate(tidewise_budget_entries_total{RATE}))", "{{state}}"),
            span=6,
        ),
        lines(
            "What the ledger failed",
            "Requests and steps within each interval, by kind. What it does not answer is not permitted.",
            COUNT,
            query(f"sum by (kind) (increase(tidewise_budget_ledger_errors_total{RATE}))", "{{kind}}"),
            span=6,
        ),
        states(
            "Replicas bound by money",
            "Workloads whose number was capped by the allowance, or whose permit was refused. Empty: none was.",
            query(
                'max by (workload, reason) (tidewise_scale_decision_reason{reason=~"budget_.+|permit_.+"})',
                "{{workload}} {{reason}}",
            ),
            words={"1": ("bound", ORANGE)},
            span=24,
            height=5,
        ),
    ]
