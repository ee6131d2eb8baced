package ml

const commandJob = "Command"

// jobProps are a job's properties.
type jobProps struct {
	Type        string                `json:"jobType"`
	DisplayName string                `json:"displayName,omitempty"`
	Description string                `json:"description,omitempty"`
	Tags        map[string]string     `json:"tags,omitempty"`
	Properties  map[string]string     `json:"properties,omitempty"`
	Archived    flag                  `json:"isArchived"`
	Experiment  string                `json:"experimentName,omitempty"`
	ComputeID   link                  `json:"computeId"`
	Command     string                `json:"command"`
	CodeID      string                `json:"codeId,omitempty"`
	Environment string                `json:"environmentId"`
	Variables   map[string]string     `json:"environmentVariables,omitempty"`
	Inputs      map[string]*jobInput  `json:"inputs,omitempty"`
	Outputs     map[string]*jobOutput `json:"outputs,omitempty"`
	Identity    *jobIdentity          `json:"identity,omitempty"`
	Limits      *jobLimits            `json:"limits,omitempty"`
	Resources   *jobResources         `json:"resources,omitempty"`

	Distribution any    `json:"distribution,omitempty" arm:"only={}"`
	Queue        any    `json:"queueSettings,omitempty" arm:"only={}"`
	Notify       any    `json:"notificationSetting,omitempty" arm:"only={}"`
	Autolog      any    `json:"autologgerSettings,omitempty" arm:"only={}"`
	Secrets      any    `json:"secretsConfiguration,omitempty" arm:"only={}"`
	Component    string `json:"componentId,omitempty" arm:"only="`
	Parent       string `json:"parentJobName,omitempty" arm:"only="`

	Status     any `json:"status,omitempty" arm:"readonly"`
	Services   any `json:"services,omitempty" arm:"readonly"`
	Parameters any `json:"parameters,omitempty" arm:"readonly"`
}

type jobInput struct {
	Type        string `json:"jobInputType" arm:"only=literal|uri_file|uri_folder"`
	Description string `json:"description,omitempty"`
	Value       any    `json:"value,omitempty"`
	URI         string `json:"uri,omitempty"`
	Mode        string `json:"mode,omitempty" arm:"only=|ReadOnlyMount|Download|Direct"`
	PathOn      any    `json:"pathOnCompute,omitempty" arm:"only="`
}

type jobOutput struct {
	Type        string `json:"jobOutputType" arm:"only=uri_file|uri_folder"`
	Description string `json:"description,omitempty"`
	URI         string `json:"uri,omitempty"`
	Mode        string `json:"mode,omitempty" arm:"only=|ReadWriteMount|Upload"`
	AssetName   string `json:"assetName,omitempty" arm:"only="`
	Asset2      string `json:"assetVersion,omitempty" arm:"only="`
	AutoDelete  any    `json:"autoDeleteSetting,omitempty" arm:"only={}"`
	PathOn      any    `json:"pathOnCompute,omitempty" arm:"only="`
}

type jobIdentity struct {
	Type     string `json:"identityType"`
	Client   string `json:"clientId,omitempty"`
	Object   string `json:"objectId,omitempty"`
	Resource string `json:"resourceId,omitempty"`
}

type jobLimits struct {
	Type    string `json:"jobLimitsType,omitempty" arm:"only=Command"`
	Timeout string `json:"timeout,omitempty"`
}

type jobResources struct {
	Instances  int    `json:"instanceCount,omitempty"`
	Type       string `json:"instanceType,omitempty" arm:"only="`
	Shm        string `json:"shmSize,omitempty"`
	DockerArgs string `json:"dockerArgs,omitempty" arm:"only="`
	Properties any    `json:"properties,omitempty"`
	Locations  any    `json:"locations,omitempty" arm:"only=[]"`
	MaxCount   any    `json:"maxInstanceCount,omitempty" arm:"only=1"`
}

// UnmarshalJSON reads a job, if it is a command.
func (p *jobProps) UnmarshalJSON(b []byte) error {
	type plain jobProps
	return chosen(b, "jobType", "types of jobs", (*plain)(p), commandJob)
}
