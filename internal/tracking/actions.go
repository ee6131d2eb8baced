package tracking

import "castellan/internal/arm"

const namespace = "Microsoft.MachineLearningServices"

// What one can do in a workspace's history, by Azure's names. A role that may
// submit jobs has runs/write; AzureML Metrics Writer has metrics/*/write alone.
var (
	experimentsRead   = arm.NewAction(namespace+"/workspaces/experiments/read", "see experiments")
	experimentsWrite  = arm.NewAction(namespace+"/workspaces/experiments/write", "make and change experiments")
	experimentsDelete = arm.NewAction(namespace+"/workspaces/experiments/delete", "delete experiments")

	RunsRead   = arm.NewAction(namespace+"/workspaces/experiments/runs/read", "see runs and what they logged")
	RunsWrite  = arm.NewAction(namespace+"/workspaces/experiments/runs/write", "begin runs and write to them")
	runsDelete = arm.NewAction(namespace+"/workspaces/experiments/runs/delete", "delete runs")

	metricsWrite = arm.NewAction(namespace+"/workspaces/metrics/resource/write", "log metrics")

	ArtifactsRead   = arm.NewAction(namespace+"/workspaces/metadata/artifacts/read", "read the artifacts of runs")
	ArtifactsWrite  = arm.NewAction(namespace+"/workspaces/metadata/artifacts/write", "write the artifacts of runs")
	artifactsDelete = arm.NewAction(namespace+"/workspaces/metadata/artifacts/delete", "delete the artifacts of runs")

	modelsRead   = arm.NewAction(namespace+"/workspaces/models/read", "see registered models")
	modelsWrite  = arm.NewAction(namespace+"/workspaces/models/write", "register and change models")
	modelsDelete = arm.NewAction(namespace+"/workspaces/models/delete", "delete registered models")

	versionsRead   = arm.NewAction(namespace+"/workspaces/models/versions/read", "see versions of models")
	versionsWrite  = arm.NewAction(namespace+"/workspaces/models/versions/write", "register and change versions of models")
	versionsDelete = arm.NewAction(namespace+"/workspaces/models/versions/delete", "delete versions of models")
)
