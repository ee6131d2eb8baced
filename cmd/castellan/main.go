// Command castellan is a private Azure Machine Learning.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"castellan/internal/node"

	"github.com/spf13/cobra"
)

func main() {
	node.Main() // a sandbox's first process is this program too
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "castellan:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "castellan",
		Short: "A private Azure Machine Learning with real security",
		Long: `Castellan gives an organisation Azure Machine Learning on its own machines:
sign-in, roles, workspaces, jobs in sandboxes, storage, vaults and an audit log.
Unmodified Azure clients work against it.

  castellan demo      see the main job, from sign-in to a trained model
  castellan up        serve
  castellan setup     what clients need to reach the server
  castellan login     administer a running server`,
		SilenceUsage: true, SilenceErrors: true,
	}
	c.AddCommand(demoCommand(), up(), setup(), auditCommand(), policyCommand(), recoverCommand(), backupCommand(), restoreCommand(),
		loginCommand(), logoutCommand(), userCommand(), groupCommand(), appCommand(), roleCommand(), whyCommand(), whoCanCommand(), pimCommand(), keysCommand(), tenantCommand(), scimCommand(), accessCommand(), signInsCommand())
	return c
}
