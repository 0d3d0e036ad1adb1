"""Who does what in a step. Every member is a way to rank jobs; `filling` seats them, so that they differ in nothing
else."""

from edgewise.base import Catalog

POLICIES = Catalog("policy", __name__, {
    "fcfs": ".fcfs:FirstComeFirstServed",
    "static": ".static:RequestLevelBatches",
    "srpt": ".srpt:ShortestRemaining",
    "mlfq": ".mlfq:FeedbackQueues",
    "sj-mlfq": ".sj_mlfq:SkipJoinQueues",
    "auto": ".auto:ReplaySwitch",
    "priority": ".priority:PriorityAgeing",
    "fair": ".fair:FairShares",
})
