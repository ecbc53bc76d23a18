{#
  Readers that `grants` in dbt_project.yml names are roles that `heed init` makes. Where it was never run there are none,
  and dbt would fail to grant; so nothing is granted there.

  Nothing is revoked: people may have granted more, and tables keep that from run to run.
#}
{% macro default__apply_grants(relation, grant_config, should_revoke=true) %}
  {% if grant_config and env_var('HEED_PG_ROLE', '') %}
    {% for privilege, readers in grant_config.items() %}
      {% call statement('grants') %}
        grant {{ privilege }} on {{ relation.render() }} to {{ readers | join(', ') }}
      {% endcall %}
    {% endfor %}
  {% endif %}
{% endmacro %}
