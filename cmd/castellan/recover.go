package main

import (
	"fmt"
	"os"

	"castellan/internal/app"
	"castellan/internal/identity"

	"github.com/spf13/cobra"
)

// recoverCommand is castellan recover: the way back for a lost administrator.
func recoverCommand() *cobra.Command {
	var cfg app.Config
	var r identity.Recovery
	var owner bool
	var file string
	c := &cobra.Command{
		Use:   "recover",
		Short: "Make somebody administrator of a stopped installation, with its root key",
		Long: `Make a person Global Administrator, with a password that must be changed at the
next sign-in. The server must be stopped; the root key is needed. The password
goes to a new file for its owner alone, and the audit log tells of it.

  castellan recover --data DIR --user admin@castellan.localhost --output-file password
  castellan recover --data DIR --user new@castellan.localhost --owner --reset-mfa --output-file password`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("the password needs a new file, named with --output-file: %w", err)
			}
			defer out.Close()
			password, err := app.Recover(c.Context(), cfg, r, owner)
			if err != nil {
				_ = os.Remove(file) // it is empty
				return err
			}
			if _, err := out.Write(append(password.Reveal(), '\n')); err != nil {
				return fmt.Errorf("writing the password (run it again for another): %w", err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is Global Administrator; the password, to be changed at the next sign-in, is in %s\n", r.UserName, file)
			return err
		},
	}
	rootFlags(c, &cfg)
	fl := c.Flags()
	fl.StringVar(&r.UserName, "user", "", "user name of the person, made if they are not there")
	fl.BoolVar(&r.ResetMFA, "reset-mfa", false, "forget the person's one-time code apps, passkeys and recovery codes")
	fl.BoolVar(&r.BreakGlass, "break-glass", false, "make it an account for emergencies, which no Conditional Access policy holds: the way back when policies shut everybody out")
	fl.BoolVar(&owner, "owner", false, "make the person Owner of the subscription too")
	fl.StringVar(&file, "output-file", "", "new file for the password")
	return c
}
