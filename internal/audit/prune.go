package audit

// pruneAction is the action of entries that tell of pruning.
const pruneAction = "castellan/audit/prune/action"

// pruning is the detail of such an entry.
type pruning struct {
	Pruned int64 `json:"pruned"` // entries at the log's beginning of which the hashes alone are left
}
