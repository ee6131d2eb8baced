package main

import (
	"castellan/internal/demo"

	"github.com/spf13/cobra"
)

func demoCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run the main job and explain it: from sign-in to a trained model",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return demo.Run(c.Context(), demo.Config{Data: data, Out: c.OutOrStdout()})
		},
	}
	c.Flags().StringVar(&data, "data", "", "a new folder for the platform (default: a temporary one, which stays)")
	return c
}
