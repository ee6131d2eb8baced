package ml

import (
	"net/http"
	"os"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Size is a size of a cluster's nodes: what a job on one of them gets.
type Size struct {
	Name      string
	Family    string
	CPUs      int
	MemoryMB  int
	ScratchMB int // most that a job may write
}

// allSizes are the names that clients know, with what those machines have.
func allSizes() []Size {
	return []Size{
		{"Standard_B1s", "standardBSFamily", 1, 1024, 4096},
		{"Standard_B1ms", "standardBSFamily", 1, 2048, 4096},
		{"Standard_DS1_v2", "standardDSv2Family", 1, 3584, 7168},
		{"Standard_B2s", "standardBSFamily", 2, 4096, 8192},
		{"Standard_DS2_v2", "standardDSv2Family", 2, 7168, 14336},
		{"Standard_D2s_v3", "standardDSv3Family", 2, 8192, 16384},
		{"Standard_DS11_v2", "standardDSv2Family", 2, 14336, 28672},
		{"Standard_DS3_v2", "standardDSv2Family", 4, 14336, 28672},
		{"Standard_D4s_v3", "standardDSv3Family", 4, 16384, 32768},
		{"Standard_DS12_v2", "standardDSv2Family", 4, 28672, 57344},
		{"Standard_DS4_v2", "standardDSv2Family", 8, 28672, 57344},
		{"Standard_D8s_v3", "standardDSv3Family", 8, 32768, 65536},
		{"Standard_DS5_v2", "standardDSv2Family", 16, 57344, 114688},
		{"Standard_D16s_v3", "standardDSv3Family", 16, 65536, 131072},
		{"Standard_D32s_v3", "standardDSv3Family", 32, 131072, 262144},
		{"Standard_D64s_v3", "standardDSv3Family", 64, 262144, 524288},
	}
}

// fitting are the sizes that the machine can give one of.
func fitting(m Machine) []Size {
	var out []Size
	for _, z := range allSizes() {
		if z.CPUs <= m.CPUs && z.MemoryMB <= m.MemoryMB {
			out = append(out, z)
		}
	}
	return out
}

// size finds one by name, whatever its case.
func (s *Service) size(name string) (Size, error) {
	var names []string
	for _, z := range s.sizes {
		if strings.EqualFold(z.Name, name) {
			return z, nil
		}
		names = append(names, z.Name)
	}
	return Size{}, arm.Errorf("InvalidVmSize", "vmSize is %q; this machine has %d CPUs and %d MB of memory and can give: %s", name, s.Machine.CPUs, s.Machine.MemoryMB, strings.Join(names, ", "))
}

// totalMemoryMB is the machine's memory, or 2048 if that can't be told.
func totalMemoryMB() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 2048
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			if kb, err := strconv.Atoi(f[1]); err == nil {
				return kb / 1024
			}
		}
	}
	return 2048
}

var (
	readSizes  = arm.NewAction(namespace+"/locations/vmsizes/read", "see which sizes of nodes there are")
	readUsages = arm.NewAction(namespace+"/locations/usages/read", "see how much of the quota is used")
	readQuotas = arm.NewAction(namespace+"/locations/quotas/read", "see the quota of the workspaces")
)

// listSizes answers with the sizes that this machine can give.
func (s *Service) listSizes(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readSizes); err != nil {
		return err
	}
	out := make([]map[string]any, len(s.sizes))
	for i, z := range s.sizes {
		out[i] = map[string]any{
			"name": z.Name, "family": z.Family, "vCPUs": z.CPUs, "gpus": 0, "memoryGB": float64(z.MemoryMB) / 1024,
			"osVhdSizeMB": 0, "maxResourceVolumeMB": z.ScratchMB, "lowPriorityCapable": false, "premiumIO": false,
			"supportedComputeTypes": []string{"AmlCompute"},
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": out})
	return nil
}

// listUsages answers with how many of the machine's CPUs jobs hold.
func (s *Service) listUsages(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	sub, err := g.On(readUsages)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": []any{map[string]any{
		"id": sub.String() + "/usages", "type": namespace + "/dedicatedCores/usages", "unit": "Count",
		"currentValue": s.engine.usedCPUs(), "limit": s.Machine.CPUs,
		"name": map[string]string{"value": "Total Cluster Dedicated Regional vCPUs", "localizedValue": "Total Cluster Dedicated Regional vCPUs"},
	}}})
	return nil
}

// listQuotas answers with what all workspaces together may use: the machine.
func (s *Service) listQuotas(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	sub, err := g.On(readQuotas)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": []any{map[string]any{
		"id": sub.String() + "/quotas/dedicatedCores", "type": namespace + "/dedicatedCores/quotas", "unit": "Count", "limit": s.Machine.CPUs,
		"name": map[string]string{"value": "Total Cluster Dedicated Regional vCPUs", "localizedValue": "Total Cluster Dedicated Regional vCPUs"},
	}}})
	return nil
}
