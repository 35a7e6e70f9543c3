// SPDX-License-Identifier: GPL-2.0-or-later

package cli

type labCmd struct {
	Demo labDemoCmd `cmd:"" help:"Boot two virtual machines from an appliance and show how they got to their login prompts."`
}
