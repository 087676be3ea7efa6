"""Each reason in words, for pages and for `tidewise recovery why`."""

from controllers.recovery.operation import Reason

MEANING: dict[Reason, str] = {
    Reason.PEERS_FINE: "it is this instance's fault: its peers are fine",
    Reason.LIVENESS_FAILS: "it is this instance's fault: its own liveness fails",
    Reason.VERIFYING: "the remedy has time to show its effect",
    Reason.STABILIZING: "the symptom is away; it must stay away for the stability window",
    Reason.RECOVERED: "the symptom stayed away for the stability window",
    Reason.SYMPTOM_REMAINS: "the last remedy did not help: the symptom is still there",
    Reason.RELAPSED: "the symptom came back within the stability window",
    Reason.INCONCLUSIVE: "after the last remedy it was neither sick nor shown healthy, which counts as failed",
    Reason.HEALTH_UNKNOWN: "whether it is well is unknown (it may be starting); what is unknown is not touched",
    Reason.NO_INSTANCES: "no instances were found; none means none, so nothing is touched",
    Reason.OUTCOME_UNKNOWN: "what became of the last attempt cannot be found out; it is not repeated",
    Reason.SILENCES_UNKNOWN: "Alertmanager does not say what is silenced; a maintenance could be going on",
    Reason.CLOCK_JUMPED: "the machine's clock was set; waiting until times can be trusted again",
    Reason.SILENCED: "its alert is silenced or in a maintenance window",
    Reason.DEPENDENCY_DOWN: "something it depends on is not known to be well, and comes first",
    Reason.NO_EVIDENCE: "nothing says that it is this instance's fault: its peers are not fine and its liveness does "
    "not fail (overload is the scaler's business)",
    Reason.BREAKER: "most of its group is sick, which is no single instance's fault",
    Reason.COOLDOWN: "most of its group was sick a moment ago",
    Reason.GROUP_LIMIT: "as many of its group as may be are being mended already",
    Reason.DOMAIN_LIMIT: "as many of its failure domain as may be are being mended already",
    Reason.REPLACEMENT_LIMIT: "as many replacements as an hour allows were made",
    Reason.BACK_OFF: "the pause after the last attempt is not over",
    Reason.LADDER_END: "every step of the ladder was tried",
    Reason.FLAPPING: "the symptom came back too often within the hour",
    Reason.INSTANCE_GONE: "the instance is no longer there",
    Reason.TARGET_REMOVED: "its target is no longer configured",
    Reason.JOURNAL_BROKEN: "the journal cannot be used, and without it nothing is done",
    Reason.SHADOW: "mode is shadow: nothing is touched and nobody is told",
    Reason.RECOMMEND: "mode is recommend: it is proposed to people",
}
