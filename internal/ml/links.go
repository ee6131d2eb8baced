package ml

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Access is by what blobs are reached: as somebody whose roles decide, or, if
// one is set, by the key or the signature that a datastore keeps.
type Access struct {
	As  arm.Caller
	Key arm.Secret // an account key, in base64
	SAS arm.Secret // the query of a shared access signature, without the question mark
	// Files says that the container is a file share, and blobs are its files.
	Files bool
}

// Blob is one blob in a list.
type Blob struct {
	Name string
	Size int64
}

// Blobs is the blob data plane. Every method is decided by RBAC for the caller
// given, and audited under its name; errors have arm's codes, and what does not
// exist is arm.NotFound. A caller given here has no Groups and no App: whoever
// implements this may fill them in.
type Blobs interface {
	// Ensure makes a container, if it is not there.
	Ensure(ctx context.Context, by Access, account arm.ID, container string) error
	// List is all blobs whose name begins with prefix, in the order of their
	// names. It fails if there are more than limit.
	List(ctx context.Context, by Access, account arm.ID, container, prefix string, limit int) ([]Blob, error)
	// Open reads one blob as it is now.
	Open(ctx context.Context, by Access, account arm.ID, container, blob string) (io.ReadCloser, error)
	// Write writes one blob wholly, durable when it returns.
	Write(ctx context.Context, by Access, account arm.ID, container, blob string, content io.Reader, size int64) error
}

// Accounts gives out what opens a storage account.
type Accounts interface {
	// Key is one of the account's keys, in base64, listed as the caller.
	Key(ctx context.Context, as arm.Caller, account arm.ID) (arm.Secret, error)
	// Sign makes a shared access signature for one container: the query without
	// a question mark. permissions is as Azure spells it, such as racwl. It can
	// do no more than the caller may at the time.
	Sign(ctx context.Context, as arm.Caller, account arm.ID, container, permissions string, until time.Time) (arm.Secret, error)
}

// CustomerKeys is what is asked before a customer's key guards a workspace. nil: none can.
type CustomerKeys interface {
	// Fit says whether the vault may have such a key: it must keep what is deleted.
	Fit(ctx context.Context, r cmk.Ref) error
	// Outside reports whether the vault of a host outside of the installation may be
	// asked for what is a tenant's.
	Outside(host, tenant string) bool
	// UserAssigned is the principal of a user-assigned identity.
	UserAssigned(ctx context.Context, id arm.ID) (string, error)
}

// Roles gives roles to identities. The caller is the package's worker, whose
// lease names the scope and roleAssignments/write or /delete on it.
type Roles interface {
	// Has reports whether principal has a built-in role, by its GUID, at scope
	// itself, for good and without a condition.
	Has(principal, role string, scope arm.ID) bool
	// Assign gives principal the role at scope. It is safe to repeat.
	Assign(ctx context.Context, as arm.Caller, principal, role string, scope arm.ID) error
	// Unassign takes it away, if it is there.
	Unassign(ctx context.Context, as arm.Caller, principal, role string, scope arm.ID) error
}

// Vaults is key vaults, of which some go by access policies, not by roles.
type Vaults interface {
	// Allows reports whether a policy of the vault's gives principal every
	// permission on keys, secrets and certificates but purge; Allow adds one that
	// does. The worker's lease names vaults/accessPolicies/write on the vault.
	Allows(vault arm.ID, principal string) bool
	Allow(ctx context.Context, as arm.Caller, vault arm.ID, principal string) error
	// Secrets lists some of the vault's secrets, without values, as the caller, and
	// where the next begin, "" if those were the last.
	Secrets(ctx context.Context, as arm.Caller, vault arm.ID, after string) (some []VaultSecret, next string, err error)
	// Secret is the newest version of one of the vault's secrets, as the caller, or
	// the code SecretNotFound.
	Secret(ctx context.Context, as arm.Caller, vault arm.ID, name string) (VaultSecret, error)
	// Keep makes a version of one of the vault's secrets, as the caller; Kept is
	// the value of one, and Discard deletes the secret, so that the vault's owner
	// can recover it.
	Keep(ctx context.Context, as arm.Caller, vault arm.ID, x VaultSecret) (version string, err error)
	Kept(ctx context.Context, as arm.Caller, vault arm.ID, name, version string) (arm.Secret, error)
	Discard(ctx context.Context, as arm.Caller, vault arm.ID, name string) error
	// Recoverable is until when a deleted vault of the id can be recovered; the
	// zero time if there is none.
	Recoverable(tx *store.Tx, vault arm.ID) (time.Time, error)
}

// VaultSecret is a version of a vault's secret.
type VaultSecret struct {
	Name             string
	Value            arm.Secret // zero in lists
	Type             string     // its content type
	Tags             map[string]string
	Created, Updated time.Time
}

// Lock is a management lock.
type Lock struct {
	Level string // CanNotDelete or ReadOnly
	Scope arm.ID
}

// Support is an account that Azure made for computes before 14 May 2021.
type Support struct {
	Object, Name string
	Roles        []string // such as "Contributor on /subscriptions/..."
}

// Around is what stands around resources. It is looked up, and needs no grant.
type Around interface {
	// Locks are those at a resource, above it and below it.
	Locks(tx *store.Tx, id arm.ID) ([]Lock, error)
	// Support is the tenant's support accounts, with what roles each has at
	// scopes that hold id.
	Support(id arm.ID) []Support
}

// Policies say what a job that is about to run must keep.
type Policies interface {
	// Job are the filters that the job's log goes through. An *arm.Error is why it
	// may not run, in words for who submitted it.
	Job(tx *store.Tx, d *resource.Doc) ([]LogFilter, error)
}

// LogFilter says which lines of a job's log people see: those that one of Lines
// matches. The whole log goes to a datastore of the workspace.
type LogFilter struct {
	Lines     []*regexp.Regexp
	Datastore string // its name
}

// Run is what run history begins with.
type Run struct {
	ID          string // the job's name
	Experiment  string // its name; made if it is not there
	DisplayName string
	User        arm.Caller // who submitted the job
	Tags        map[string]string
	Properties  map[string]string
	Started     time.Time // when it was submitted
}

// Update changes a run. Zero fields leave what is.
type Update struct {
	Status     Status
	Started    time.Time // when its command began
	Ended      time.Time
	Error      string // why it failed, for people
	Tags       map[string]string
	Properties map[string]string
}

// Runs is run history. The caller is the package's worker with a lease on the
// workspace, or the run's token itself.
type Runs interface {
	// Create begins a run, if it is not there, and tells its experiment's id.
	Create(ctx context.Context, as arm.Caller, workspace arm.ID, r Run) (experiment string, err error)
	// Update changes a run; a status that is over is never left again.
	Update(ctx context.Context, as arm.Caller, workspace arm.ID, run string, u Update) error
	// Append adds to one of the run's artifacts, made by the first call; what was
	// appended can be read while the run goes on.
	Append(ctx context.Context, as arm.Caller, workspace arm.ID, run, path string, data []byte) error
	// Put keeps one artifact of the run wholly.
	Put(ctx context.Context, as arm.Caller, workspace arm.ID, run, path string, content io.Reader, size int64) error
}

// Task is one command to run in a sandbox of its own.
type Task struct {
	Name     string   // of the sandbox: lower case letters, digits and -, not longer than 63
	Dir      string   // folder on the host, made for this task alone: the task may write to all of it but ReadOnly
	ReadOnly []string // folders below Dir, by their host paths
	Work     string   // working directory, by its host path, in Dir
	Command  []string // Command[0] is an absolute path of the sandbox
	Env      []string // NAME=value; all that the command gets
	CPUs     float64
	MemoryMB int
	Timeout  time.Duration // 0 means none
	// Listeners are served inside the sandbox on its loopback interface, each by
	// its name, and by nobody else's sandbox. Address(name) in a value of Env
	// stands for the host:port that it got.
	Listeners map[string]http.Handler
	// Log gets standard output and error as they come. Its errors are ignored.
	Log io.Writer
	// Tenant is whose the task is: only this tenant's host names are known inside.
	Tenant string
}

// Ended is how a task ended. When it is handed out nothing of the task runs.
type Ended struct {
	Code     int // exit code
	TimedOut bool
	Canceled bool
	Reason   string            // "" if the command ended by itself, else why, for people
	Tier     string            // the isolation that was really used
	Details  map[string]string // which limits the kernel held, and the like; kept with the run
}

// Sandboxes runs tasks.
type Sandboxes interface {
	// Run runs a task to its end, or kills it when ctx is done. begun is called
	// once, when its command has been started. An error means that it could not
	// be started; the message of an *arm.Error is shown to who submitted the job.
	Run(ctx context.Context, t Task, begun func(tier string)) (Ended, error)
	// Seal sees to it that what will lie in a task's folder, empty yet, opens to
	// nobody once forget was called, if the machine can do that: how says.
	Seal(dir string) (how string, forget func() error, err error)
	// Sealed reports whether nobody can read what tasks left in their folders.
	Sealed() bool
	// Inside is where a task will see a path of the host below its Dir.
	Inside(path string) string
	// Address stands for a listener's host:port in values of Env.
	Address(listener string) string
}

// LentFunc mints a token of the person who submitted the job, for one audience.
type LentFunc func(ctx context.Context, audience string) (token arm.Secret, client string, expires time.Time, err error)

// TokenFunc mints a token for one sandbox. At most one of clientID, objectID
// and resourceID is set, and names which of the sandbox's identities is meant.
type TokenFunc func(ctx context.Context, resource, clientID, objectID, resourceID string) (token arm.Secret, client string, expires time.Time, err error)

// Metadata makes the endpoints by which a sandbox gets tokens, each for one
// sandbox and for the listener of its name.
type Metadata interface {
	// Managed is for MSI_ENDPOINT and IDENTITY_ENDPOINT, at the path /msi/token.
	Managed(secret arm.Secret, token TokenFunc) http.Handler
	// Instance is the instance metadata service. A nil token is of a sandbox
	// without identities.
	Instance(token TokenFunc, facts map[string]any) http.Handler
	// Lent is for OBO_ENDPOINT, at the path /obo/token.
	Lent(token LentFunc) http.Handler
}

// Tokens mints access tokens of managed identities, for jobs.
type Tokens interface {
	// Managed is a token for one audience as the system-assigned identity of a
	// resource (a cluster's id) or a user-assigned identity (its id). An audience
	// that is not on the platform's list, letter by letter, is arm.BadRequest. If
	// a sandbox is named, the token is good out of that one alone.
	Managed(ctx context.Context, as arm.Caller, of arm.ID, audience, sandbox string) (token arm.Secret, client string, expires time.Time, err error)
	// Client is the client id of the identity of a resource, or that is one, by its
	// principal; "" if it is gone.
	Client(of arm.ID, principal string) string
}

// Applications are service principals.
type Applications interface {
	// Prove is the one that has a secret, or a certificate and its key in PEM. The
	// sign-in is recorded like any other; what does not prove it is an *arm.Error.
	Prove(ctx context.Context, tenant, client string, secret, certificate arm.Secret) (arm.Caller, error)
}

// Loan is a person's identity in the hands of one execution of a job.
type Loan struct {
	ID           string // of the execution, never used again
	Tenant, User string
	SignIn       arm.SignIn // by which the job was submitted
	Sandbox      string     // where its tokens are good, and nowhere else
}

// People lends the identities of those who submit jobs to their jobs.
type People interface {
	// Lend begins a loan; Recall ends it, and its tokens with it, at once.
	Lend(l Loan)
	Recall(id string)
	// Known is a principal as the directory knows it now; an error if it may not sign in.
	Known(tenant, object string) (arm.Caller, error)
	// Lender is the person, as the directory knows them now. It is an error, worded
	// for the job's owner, if they may not sign in any more or the sign-in was ended.
	Lender(l Loan) (arm.Caller, error)
	// Token is a token of a live loan's person. The worker's lease is for the job
	// and the loan. What is not lent for is arm.BadRequest.
	Token(ctx context.Context, as arm.Caller, job arm.ID, loan, audience string) (token arm.Secret, client string, expires time.Time, err error)
}
